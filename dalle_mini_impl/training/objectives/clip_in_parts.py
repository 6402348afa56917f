"""CLIP's objective for a batch that is computed in parts, to save memory.

Every example is compared with all others of the batch, so no part has a loss of its own. As in
open_clip, all parts are embedded first, without keeping activations. The gradient of the whole
batch's loss with respect to each embedding is computed from these, and then each part is embedded
again and passes its gradients on (Gao et al. 2021, arXiv 2101.06983).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dalle_mini_impl.data.batches import ImageBatch
from dalle_mini_impl.models.clip import Clip
from dalle_mini_impl.models.config import ClipConfig
from dalle_mini_impl.training.objectives.clip import ClipObjective, Embeddings
from dalle_mini_impl.training.objectives.objective import Losses, micro_batches


@dataclass(frozen=True)
class ComparedBatch:
    """A batch with the losses of all of it, and their gradients at its embeddings."""

    images: Float[Tensor, "b 3 h w"]
    """Some of them already reconstructed."""
    captions: Int[Tensor, "b t"]
    negatives: Int[Tensor, "b m t"] | None
    slopes: Float[Tensor, "b d"]
    """Of the loss, at each example's embeddings in one row."""
    losses: Losses
    size: int
    """Examples in the whole batch."""


class ClipInParts(ClipObjective):
    """The losses and gradients of `ClipObjective`, one micro-batch after the other."""

    def prepare(self, batch: ImageBatch, generator: torch.Generator | None = None) -> ComparedBatch:
        """Embed the batch part by part, and compare all of it."""
        count, size = self.config.training.grad_accum_steps, len(batch.images)
        batch = replace(batch, images=self.with_reconstructions(batch.images, -(-size // count)))
        with torch.no_grad():
            parts = [
                self.embed(self.model, part.images, part.captions, part.negatives)
                for part, _ in micro_batches(batch, count)
            ]
        embedded = Embeddings._make(_joined(field) for field in zip(*parts, strict=True))
        losses = self.compare(batch, embedded)
        given = [field for field in embedded if field is not None]
        slopes = torch.autograd.grad(losses["loss"], given)
        stated = {name: loss.detach() for name, loss in losses.items()}
        return ComparedBatch(
            batch.images, batch.captions, batch.negatives, _in_rows(slopes), stated, size
        )

    def losses(
        self,
        model: Clip,
        batch: ImageBatch | ComparedBatch,
        progress: float,
        generator: torch.Generator | None = None,
    ) -> Losses:
        """Of a part, the losses of the whole batch; the gradient of `loss` is the part's."""
        if isinstance(batch, ImageBatch):
            return super().losses(model, batch, progress, generator)
        embedded = self.embed(model, batch.images, batch.captions, batch.negatives)
        rows = _in_rows([field for field in embedded if field is not None])
        # The learner weighs a part by its share of the examples.
        pull = (rows * batch.slopes).sum() * (batch.size / len(rows))
        return batch.losses | {"loss": batch.losses["loss"] + pull - pull.detach()}


def clip_objective(
    model: Clip, config: ClipConfig, autoencode: Callable[[Tensor], Tensor] | None = None
) -> ClipObjective:
    """The objective that fits the configured micro-batches."""
    kind = ClipInParts if config.training.grad_accum_steps > 1 else ClipObjective
    return kind(model, config, autoencode)


def _joined(parts: tuple[Tensor | None, ...]) -> Tensor | None:
    """One field of all parts, as the start of a graph."""
    given = [part for part in parts if part is not None]
    return torch.cat(given).detach().requires_grad_() if given else None


def _in_rows(fields: list[Tensor] | tuple[Tensor, ...]) -> Float[Tensor, "b d"]:
    return torch.cat([field.reshape(len(field), -1) for field in fields], dim=1)

"""CLIP's objectives: match each image with its caption, against others and near misses."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from dalle_mini_impl.data.batches import ImageBatch
from dalle_mini_impl.kernels.full_precision import full_precision
from dalle_mini_impl.models.clip import Clip
from dalle_mini_impl.models.config import ClipConfig


def gathered(x: Tensor) -> Tensor:
    """The rows of all processes, with the gradient of this one's; `x` itself for one process."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    return torch.cat(all_gather(x))


def equal_captions(captions: Int[Tensor, "b t"], others: Int[Tensor, "n t"]) -> Bool[Tensor, "b n"]:
    """Which pairs of captions are equal: these are never used as negatives."""
    return (captions[:, None] == others[None]).all(dim=-1)


def infonce(
    logits: Float[Tensor, "b n"], own: Int[Tensor, "b"], same: Bool[Tensor, "b n"]
) -> Float[Tensor, ""]:
    """Cross-entropy with column `own` as the target; other equal captions are left out.

    Radford et al. 2021, arXiv 2103.00020, figure 3.
    """
    keep = F.one_hot(own, logits.shape[1]).bool()
    return F.cross_entropy(logits.masked_fill(same & ~keep, float("-inf")), own)


def siglip(logits: Float[Tensor, "b n"], same: Bool[Tensor, "b n"]) -> Float[Tensor, ""]:
    """Independent sigmoids, summed over an image's pairs (Zhai et al. 2023, arXiv 2303.15343)."""
    return -F.logsigmoid(torch.where(same, logits, -logits)).sum(dim=1).mean()


def hard_negative_loss(
    own: Float[Tensor, "b"], wrong: Float[Tensor, "b m"], real: Bool[Tensor, "b m"]
) -> Float[Tensor, ""]:
    """Cross-entropy of the true caption against wrong ones of the same image.

    real: which of the wrong captions exist; an image without any adds nothing.
    """
    logits = torch.cat((own[:, None], wrong.masked_fill(~real, float("-inf"))), dim=1)
    return -logits.log_softmax(dim=1)[:, 0].mean()


class Embeddings(NamedTuple):
    """What a batch's losses are computed from, in rows that belong to one example each."""

    images: Float[Tensor, "b e"]
    """Of unit length, as are the texts."""
    texts: Float[Tensor, "b e"]
    wrong: Float[Tensor, "b m e"] | None
    """Of the wrong captions."""
    scale: Float[Tensor, "b"]
    """The logit scale, once for each example; `bias` likewise."""
    bias: Float[Tensor, "b"]


class ClipObjective:
    """Contrastive losses in both directions, plus hard negatives where the batch has them.

    autoencode: maps images to their reconstructions by the run's image tokenizer. A share of the
    training images passes through it, because reconstructions are what CLIP will rank.
    """

    def __init__(
        self,
        model: Clip,
        config: ClipConfig,
        autoencode: Callable[[Tensor], Tensor] | None = None,
    ):
        self.model = model
        self.config = config
        self.autoencode = autoencode

    def losses(
        self,
        model: Clip,
        batch: ImageBatch,
        progress: float,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """`loss`, `contrastive`, `hard`, and `accuracy` (true caption highest in the batch)."""
        shown = self.with_reconstructions(batch.images)
        return self.compare(batch, self.embed(model, shown, batch.captions, batch.negatives))

    def held_out_losses(self, model: Clip, batch: ImageBatch) -> dict[str, Tensor]:
        """`contrastive` and `accuracy`; hard negatives are drawn at random and are left out."""
        losses = self.losses(model, dataclasses.replace(batch, negatives=None), 1.0)
        return {name: losses[name] for name in ("contrastive", "accuracy")}

    def after_update(self) -> None:
        """Bound the model's scale."""
        self.model.clamp_scale()

    def embed(
        self,
        model: Clip,
        images: Float[Tensor, "b 3 h w"],
        captions: Int[Tensor, "b t"],
        negatives: Int[Tensor, "b m t"] | None,
    ) -> Embeddings:
        """What `compare` compares."""
        wrong = None
        if negatives is not None:
            wrong = model.encode_text(rearrange(negatives, "b m t -> (b m) t"))
            wrong = rearrange(wrong, "(b m) e -> b m e", b=len(images))
        scale, bias = (each.expand(len(images)) for each in (model.logit_scale, model.bias))
        return Embeddings(
            model.encode_image(images), model.encode_text(captions), wrong, scale, bias
        )

    def compare(self, batch: ImageBatch, embedded: Embeddings) -> dict[str, Tensor]:
        """The losses of `losses`."""
        # In bf16, logits near 100 have steps of half a nat.
        with full_precision(embedded.images.device):
            return self._compare(batch, embedded)

    def _compare(self, batch: ImageBatch, embedded: Embeddings) -> dict[str, Tensor]:
        images, texts, wrong, scale, bias = embedded
        scaled = scale[:, None]
        all_images, all_texts = gathered(images), gathered(texts)
        same = equal_captions(batch.captions, gathered(batch.captions))
        for numbers in (batch.groups, batch.texts):
            if numbers is not None:
                same |= numbers[:, None] == gathered(numbers)[None]
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        own = torch.arange(len(images), device=images.device) + rank * len(images)
        to_text = scaled * images @ all_texts.T + bias[:, None]
        to_image = scaled * texts @ all_images.T + bias[:, None]
        if self.config.loss == "siglip":
            contrastive = siglip(to_text, same)
        else:
            contrastive = (infonce(to_text, own, same) + infonce(to_image, own, same)) / 2
        losses = {
            "loss": contrastive,
            "contrastive": contrastive.detach(),
            "accuracy": (to_text.argmax(1) == own).float().mean(),
        }
        if wrong is not None and batch.negatives is not None:
            similarity = scaled * torch.einsum("b e, b m e -> b m", images, wrong)
            real = (batch.negatives != 0).any(dim=-1)
            hard = hard_negative_loss(scale * (images * texts).sum(1), similarity, real)
            losses |= {"loss": contrastive + hard, "hard": hard.detach()}
        return losses

    def with_reconstructions(
        self, images: Float[Tensor, "b 3 h w"], at_once: int | None = None
    ) -> Float[Tensor, "b 3 h w"]:
        """The batch with its first images, a configured share, replaced by reconstructions.

        at_once: most images that are decoded together; none means all.
        """
        count = round(self.config.reconstructions * len(images))
        if self.autoencode is None or count == 0:
            return images
        with torch.no_grad():
            parts = images[:count].split(at_once or count)
            shown = [self.autoencode(part).to(images.dtype) for part in parts]
            return torch.cat((*shown, images[count:]))

"""CLIP's objectives: agree with the own caption, not with the batch's others or near ones."""

from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from dalle_mini_impl.data.batches import PictureBatch
from dalle_mini_impl.models.clip import Clip, ClipConfig


def gathered(x: Tensor) -> Tensor:
    """The rows of every process, own gradient included; itself when there is one process."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    return torch.cat(all_gather(x))


def equal_captions(captions: Int[Tensor, "b t"], others: Int[Tensor, "n t"]) -> Bool[Tensor, "b n"]:
    """Which pairs of captions are the same: they are never each other's negatives."""
    return (captions[:, None] == others[None]).all(dim=-1)


def infonce(
    logits: Float[Tensor, "b n"], own: Int[Tensor, "b"], same: Bool[Tensor, "b n"]
) -> Float[Tensor, ""]:
    """Cross-entropy of the own column, other columns with an equal caption left out."""
    keep = F.one_hot(own, logits.shape[1]).bool()
    return F.cross_entropy(logits.masked_fill(same & ~keep, float("-inf")), own)


def siglip(logits: Float[Tensor, "b n"], same: Bool[Tensor, "b n"]) -> Float[Tensor, ""]:
    """Independent sigmoids, summed over a picture's pairs (Zhai et al. 2023, arXiv 2303.15343)."""
    return -F.logsigmoid(torch.where(same, logits, -logits)).sum(dim=1).mean()


class ClipObjective:
    """Contrastive losses both ways, plus hard negatives where the collection can make them.

    hard_negatives: given a batch's picture indices, ids of captions that are wrong by one
    attribute (`b m t`), or None where there are none.
    """

    def __init__(self, model: Clip, config: ClipConfig):
        self.model = model
        self.config = config

    def losses(
        self,
        model: Clip,
        batch: PictureBatch,
        progress: float,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """`loss`, `contrastive`, `accuracy` (own caption first in the batch), `hard`, `scale`."""
        images = model.encode_image(batch.images)
        texts = model.encode_text(batch.captions)
        scale = model.logit_scale
        all_images, all_texts = gathered(images), gathered(texts)
        all_captions = gathered(batch.captions)
        same = equal_captions(batch.captions, all_captions)
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        own = torch.arange(len(images), device=images.device) + rank * len(images)
        to_text = scale * images @ all_texts.T + model.bias
        to_image = scale * texts @ all_images.T + model.bias
        if self.config.loss == "siglip":
            contrastive = siglip(to_text, same)
        else:
            contrastive = (infonce(to_text, own, same) + infonce(to_image, own, same)) / 2
        losses = {"contrastive": contrastive, "scale": scale.detach()}
        losses["accuracy"] = (to_text.argmax(1) == own).float().mean().detach()
        loss = contrastive
        return {"loss": loss, **losses}

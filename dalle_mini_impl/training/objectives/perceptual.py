"""The objective of the small network whose features VQGAN's perceptual loss compares.

Dense contrastive learning (Wang et al. 2021, arXiv 2011.09157) with the InfoNCE loss: the feature
at a position must match the same position under another brightness and contrast, and must differ
from other positions and from the blurred image. Features that blur does not change could not
distinguish a sharp reconstruction from a soft one.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dalle_mini_impl.data.batches import ImageBatch
from dalle_mini_impl.models.tokenizers.perceptual import PerceptualNetwork

TEMPERATURE = 0.1
POSITIONS = 32
"""Positions of each map that are compared."""
MAX_CHANGE = 0.15
"""Largest change of brightness and contrast."""


class PerceptualObjective:
    """Match each position under another brightness, against other positions and blur."""

    def __init__(self, model: PerceptualNetwork):
        self.model = model

    def losses(
        self,
        model: PerceptualNetwork,
        batch: ImageBatch,
        progress: float,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """`loss`, and `accuracy`: the share of positions that are matched; means over the maps."""
        images = batch.images
        views = (jitter(images, generator), jitter(images, generator), blur(images))
        losses, found = [], []
        for maps in model(torch.cat(views)):
            first, second, blurred = F.normalize(random_positions(maps, generator), dim=-1).chunk(3)
            others = torch.einsum("b p c, b q c -> b p q", first, second)
            itself = (first * blurred).sum(dim=-1, keepdim=True)
            logits = (torch.cat((others, itself), dim=-1) / TEMPERATURE).flatten(0, 1)
            target = torch.arange(first.shape[1], device=logits.device).repeat(len(images))
            losses.append(F.cross_entropy(logits, target))
            found.append((logits.argmax(dim=-1) == target).float().mean())
        return {"loss": torch.stack(losses).mean(), "accuracy": torch.stack(found).mean()}


def random_positions(
    maps: Float[Tensor, "b c h w"], generator: torch.Generator | None
) -> Float[Tensor, "b p c"]:
    """Features at random positions, the same ones for every image."""
    flat = maps.flatten(2).transpose(1, 2).float()
    count = min(POSITIONS, flat.shape[1])
    order = torch.rand(flat.shape[1], generator=generator, device=maps.device).argsort()
    return flat[:, order[:count]]


def jitter(
    images: Float[Tensor, "b 3 h w"], generator: torch.Generator | None
) -> Float[Tensor, "b 3 h w"]:
    """Each image with another brightness and contrast."""
    shares = 2 * torch.rand(2, len(images), generator=generator, device=images.device) - 1
    brightness, contrast = (MAX_CHANGE * shares)[:, :, None, None, None]
    return (images - 0.5) * (1 + contrast) + 0.5 + brightness


def blur(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Images at half their resolution, scaled up again."""
    return F.interpolate(F.avg_pool2d(images, 2), size=images.shape[-2:], mode="bilinear")

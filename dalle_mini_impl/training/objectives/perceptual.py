"""What a perceptual loss looks through, and training a network for it on the collection itself.

At every place of a map its features are to know the place again in another light, among other
places of the image and among themselves out of focus: features that blur does not change could
not tell a sharp reconstruction from a soft one. (Dense contrastive learning: Wang et al. 2021,
arXiv 2011.09157; the loss is InfoNCE's.)
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dalle_mini_impl.data.batches import ImageBatch
from dalle_mini_impl.models.tokenizers.perceptual import PerceptualNetwork

TEMPERATURE = 0.1
PLACES = 32
"""Places of each map that are compared."""
LIGHT = 0.15
"""Largest change of brightness and contrast."""


class PerceptualObjective:
    """Find each place in another light, among other places and itself out of focus."""

    def __init__(self, model: PerceptualNetwork):
        self.model = model

    def losses(
        self,
        model: PerceptualNetwork,
        batch: ImageBatch,
        progress: float,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """`loss`, and `accuracy`: the share of places that are found; means over the maps."""
        images = batch.images
        shown = (relit(images, generator), relit(images, generator), unfocused(images))
        losses, found = [], []
        for maps in model(torch.cat(shown)):
            here, there, soft = F.normalize(places(maps, generator), dim=-1).chunk(3)
            others = torch.einsum("b p c, b q c -> b p q", here, there)
            own = (here * soft).sum(dim=-1, keepdim=True)
            logits = (torch.cat((others, own), dim=-1) / TEMPERATURE).flatten(0, 1)
            target = torch.arange(here.shape[1], device=logits.device).repeat(len(images))
            losses.append(F.cross_entropy(logits, target))
            found.append((logits.argmax(dim=-1) == target).float().mean())
        return {"loss": torch.stack(losses).mean(), "accuracy": torch.stack(found).mean()}


def places(
    maps: Float[Tensor, "b c h w"], generator: torch.Generator | None
) -> Float[Tensor, "b p c"]:
    """Features at random places, the same of every row."""
    flat = maps.flatten(2).transpose(1, 2).float()
    count = min(PLACES, flat.shape[1])
    order = torch.rand(flat.shape[1], generator=generator, device=maps.device).argsort()
    return flat[:, order[:count]]


def relit(
    images: Float[Tensor, "b 3 h w"], generator: torch.Generator | None
) -> Float[Tensor, "b 3 h w"]:
    """Each image in another light."""
    shares = 2 * torch.rand(2, len(images), generator=generator, device=images.device) - 1
    brightness, contrast = (LIGHT * shares)[:, :, None, None, None]
    return (images - 0.5) * (1 + contrast) + 0.5 + brightness


def unfocused(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Images with half the detail."""
    return F.interpolate(F.avg_pool2d(images, 2), size=images.shape[-2:], mode="bilinear")

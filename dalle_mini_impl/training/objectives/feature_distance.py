"""The perceptual loss: the distance between feature maps of a frozen network."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Features = Callable[[Tensor], Tensor | Sequence[Tensor]]
"""A frozen network: images to one feature map or several, `b c h w` each."""


def perceptual_distance(
    features: Features, decoded: Float[Tensor, "b 3 h w"], images: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, ""]:
    """Squared distance of feature maps of unit channels, averaged over places, summed over maps."""
    with torch.no_grad():
        wanted = _maps(features(images))
    pairs = zip(_maps(features(decoded)), wanted, strict=True)
    distances = [
        (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(dim=1).mean() for a, b in pairs
    ]
    return torch.stack(distances).sum()


def _maps(features: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [features] if isinstance(features, Tensor) else features

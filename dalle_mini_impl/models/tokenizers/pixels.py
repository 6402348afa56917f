"""How the decoder's maps become pixels: DALL·E's distribution, or the pixels themselves."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

PixelError = Literal["l1", "l2", "charbonnier"]


class LogitLaplacePixels:
    """DALL·E's pixel distribution (arXiv 2102.12092, appendix A.3): maps are μ and ln b.

    A pixel x in [0, 1] is squeezed to φ(x) = (1 - 2ε)x + ε, whose logit is Laplace distributed.

    scale_weighting: power of the scale b by which training weighs a value's likelihood (arXiv
    2203.09168). The gradient at the mean grows as 1/b, so that confident plain areas outweigh
    objects; 0 is the paper's.
    """

    maps = 6
    epsilon = 0.1

    def __init__(self, scale_weighting: float = 0.0):
        self.scale_weighting = scale_weighting

    def images(self, maps: Float[Tensor, "b 6 h w"]) -> Float[Tensor, "b 3 h w"]:
        """The median of the distribution, φ⁻¹(σ(μ)), in [0, 1]."""
        return self.unclamped(maps).clamp(0, 1)

    def unclamped(self, maps: Float[Tensor, "b 6 h w"]) -> Float[Tensor, "b 3 h w"]:
        """The median, which may leave [0, 1]."""
        mean, _ = maps.chunk(2, dim=1)
        return (mean.sigmoid() - self.epsilon) / (1 - 2 * self.epsilon)

    def scales(self, maps: Float[Tensor, "b 6 h w"]) -> Float[Tensor, "b 3 h w"]:
        """b, the scale of the Laplace distribution of every value."""
        return maps.chunk(2, dim=1)[1].exp()

    def errors(
        self, maps: Float[Tensor, "b 6 h w"], images: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b 3 h w"]:
        """The loss of every value."""
        weights = self.scales(maps).detach() ** self.scale_weighting
        return self.negative_log_likelihood(maps, images) * weights

    def negative_log_likelihood(
        self, maps: Float[Tensor, "b 6 h w"], images: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b 3 h w"]:
        """-ln of the density of φ(x), per value, in nats."""
        mean, log_scale = maps.chunk(2, dim=1)
        mapped = (1 - 2 * self.epsilon) * images + self.epsilon
        distance = (torch.logit(mapped) - mean).abs() * torch.exp(-log_scale)
        return distance + log_scale + math.log(2) + torch.log(mapped * (1 - mapped))


class PlainPixels:
    """Maps that are the pixels themselves, centered on mid-gray."""

    maps = 3

    def __init__(self, error: PixelError):
        self.error = error

    def images(self, maps: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Pixels in [0, 1]."""
        return self.unclamped(maps).clamp(0, 1)

    def unclamped(self, maps: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Pixels that may leave [0, 1]: what training compares, since a clamp stops gradients."""
        return 0.5 + 0.5 * maps

    def errors(
        self, maps: Float[Tensor, "b 3 h w"], images: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b 3 h w"]:
        """The loss of every value."""
        return pixel_errors(self.unclamped(maps) - images, self.error)


def pixel_errors(difference: Tensor, kind: PixelError) -> Tensor:
    """The error of every value: "l1", "l2" or "charbonnier" (L1, smooth below about 0.01)."""
    match kind:
        case "l1":
            return difference.abs()
        case "l2":
            return difference.square()
        case "charbonnier":
            return (difference.square() + 1e-4).sqrt() - 1e-2

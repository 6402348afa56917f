"""How the decoder's maps become pixels: DALL·E's distribution, or the pixels themselves."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


class LogitLaplacePixels:
    """DALL·E's pixel distribution (arXiv 2102.12092, appendix A.3): maps are μ and ln b.

    A pixel x in [0, 1] is squeezed to φ(x) = (1 - 2ε)x + ε, whose logit is Laplace distributed.
    """

    maps = 6
    epsilon = 0.1

    def images(self, maps: Float[Tensor, "b 6 h w"]) -> Float[Tensor, "b 3 h w"]:
        """The median of the distribution, φ⁻¹(σ(μ)), in [0, 1]."""
        mean, _ = maps.chunk(2, dim=1)
        return ((mean.sigmoid() - self.epsilon) / (1 - 2 * self.epsilon)).clamp(0, 1)

    def scales(self, maps: Float[Tensor, "b 6 h w"]) -> Float[Tensor, "b 3 h w"]:
        """b, the scale of the Laplace distribution of every value."""
        return maps.chunk(2, dim=1)[1].exp()

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

    def images(self, maps: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return self.unclamped(maps).clamp(0, 1)

    def unclamped(self, maps: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Pixels that may leave [0, 1]: what training compares, since a clamp stops gradients."""
        return 0.5 + 0.5 * maps

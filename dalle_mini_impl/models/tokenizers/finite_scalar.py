"""Finite scalar quantization (Mentzer et al. 2023, arXiv 2309.15505): rounded channels as codes."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dalle_mini_impl.models.tokenizers.quantizer import (
    Nearest,
    Quantized,
    per_channel,
    straight_through,
)


class FiniteScalarQuantizer(nn.Module):
    """Each channel rounded to one of a few levels: no codebook to learn or to collapse.

    Mentzer et al. 2023, arXiv 2309.15505. `levels` gives the levels per channel and their
    product the code count. Latents lie in [-1, 1], in steps of 1 / (levels // 2).
    """

    feature_gain = 1.0
    codebook: Tensor
    levels: Tensor

    def __init__(self, levels: tuple[int, ...]):
        super().__init__()
        self.code_count = math.prod(levels)
        self.features = self.latents = len(levels)
        # Follow from the configuration, so they are not saved with the weights.
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        digits = torch.cartesian_prod(*(torch.arange(n) for n in reversed(levels)))
        digits = digits.reshape(self.code_count, len(levels)).flip(1)  # first channel fastest
        half = self.levels // 2
        self.register_buffer("codebook", (digits - half) / half, persistent=False)

    def forward(self, features: Float[Tensor, "b d h w"]) -> Quantized:
        """The nearest levels, with gradients passed straight through the rounding."""
        return Quantized(self.nearest(self.bound(features)).latents, {})

    def bound(self, features: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        """Squash into the range of the levels, before rounding; zero stays zero.

        An even number of levels has no middle: its range is moved by half a step so that
        rounding to integers still yields every level, and the tanh is moved back to keep 0 at 0
        (but for two levels, whose zero is an end of the range).
        """
        levels = per_channel(self.levels)
        # Slightly inside, so that saturated features cannot round to a level that is not there.
        reach = (levels - 1) * (1 - 1e-3) / 2
        offset = (levels % 2 == 0) * 0.5
        shift = torch.atanh(torch.where(levels > 2, offset / reach, 0.0))
        return (torch.tanh(features + shift) * reach - offset) / (levels // 2)

    def codes(self, features: Float[Tensor, "b d h w"]) -> Int[Tensor, "b h w"]:
        return self.nearest(self.bound(features)).codes

    def embed(self, codes: Int[Tensor, "b h w"]) -> Float[Tensor, "b d h w"]:
        return F.embedding(codes, self.codebook).movedim(-1, 1)

    def nearest(self, latents: Float[Tensor, "b d h w"]) -> Nearest:
        """The levels closest to `latents`, with gradients passed straight through."""
        half = per_channel(self.levels // 2)
        top = per_channel(self.levels - 1)
        digits = torch.minimum((latents * half).round() + half, top).clamp_min(0)
        places = per_channel(self.levels.cumprod(0) // self.levels)
        codes = (digits.long() * places).sum(dim=1)
        return Nearest(straight_through(latents, (digits - half) / half), codes)

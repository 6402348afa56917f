"""What all quantizers share: how a map of features becomes integer codes, and codes latents.

A quantizer of one codebook has `code_count`, the channels it takes (`features`) and gives
(`latents`), the gain that its features start with (`feature_gain`), a `forward` for training,
`codes(features)`, `embed(codes)` and `nearest(latents)`. Codes here are maps `b h w`. `product.py`
combines several of one kind.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dalle_mini_impl.kernels.full_precision import full_precision


class Quantized(NamedTuple):
    """What training decodes, and named losses where the quantizer has any."""

    latents: Float[Tensor, "b d h w"]
    losses: dict[str, Tensor]


class Nearest(NamedTuple):
    """The latents that are codes, and these codes."""

    latents: Float[Tensor, "b d h w"]
    codes: Int[Tensor, "b h w"]


class Relaxation(NamedTuple):
    """What a categorical quantizer's training pass draws codes with: Gumbel noise and τ > 0."""

    noise: Float[Tensor, "b h w k"]
    temperature: Float[Tensor, ""]


def straight_through(
    latents: Float[Tensor, "b d h w"], quantized: Float[Tensor, "b d h w"]
) -> Float[Tensor, "b d h w"]:
    """The value of `quantized` with the gradient of `latents`."""
    return latents + (quantized - latents).detach()


def nearest_rows(
    latents: Float[Tensor, "b d h w"], rows: Float[Tensor, "k d"]
) -> Int[Tensor, "b h w"]:
    """Index of the row with the smallest Euclidean distance to each latent."""
    with torch.no_grad(), full_precision(latents.device):
        points = latents.movedim(1, -1)
        # |p|² is the same for every row.
        distances = rows.square().sum(dim=1) - 2 * points @ rows.T
        return distances.argmin(dim=-1)


def per_channel(values: Float[Tensor, "d"] | Int[Tensor, "d"]) -> Tensor:
    """Values that broadcast over maps `b d h w`."""
    return values.reshape(1, -1, 1, 1)

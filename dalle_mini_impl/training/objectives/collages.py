"""Images put together from patches of a batch, few of them of a single color."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

PLAIN = 1e-4
"""Variance of its values, summed over channels, below which a patch is of one color."""


def collages(
    images: Float[Tensor, "b 3 h w"],
    side: int,
    count: int,
    plain_share: float,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n 3 h w"]:
    """Images made of about `count` patches of `side` pixels sampled from the batch; at least one.

    Most of a drawing is background: sampled evenly, its few edges would be learned last. So plain
    patches are sampled `plain_share` times as often as others. For autoencoders that code each
    patch by itself: its neighbors do not matter.
    """
    grid = images.shape[-1] // side
    patches = rearrange(images, "b c (h p) (w q) -> (b h w) c p q", p=side, q=side)
    plain = patches.var(dim=(2, 3)).sum(dim=1) < PLAIN
    shares = torch.where(plain, plain_share, 1.0)
    total = max(1, count // grid**2) * grid**2
    chosen = torch.multinomial(shares, total, replacement=True, generator=generator)
    return rearrange(patches[chosen], "(n h w) c p q -> n c (h p) (w q)", h=grid, w=grid)

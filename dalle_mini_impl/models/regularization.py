"""Dropout (Srivastava et al. 2014) and stochastic depth (Huang et al. 2016, arXiv 1603.09382).

All masks of a training step are drawn before the first block. So blocks draw no random numbers, and
may be computed again in the backward pass.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dalle_mini_impl.kernels.random_masks import random_masks
from dalle_mini_impl.models.config import TransformerConfig


class Mask(NamedTuple):
    """What is kept of one tensor. What is kept is scaled, so that the expected value stays."""

    kept: Bool[Tensor, "b s c"] | None = None
    """The numbers that dropout keeps."""
    scale: float = 1.0
    """Factor of these numbers."""
    examples: Float[Tensor, "b"] | None = None
    """Factor of each example, 0 where stochastic depth drops it."""

    def __call__(self, x: Float[Tensor, "b s c"]) -> Float[Tensor, "b s c"]:
        if self.kept is not None:
            x = x * (self.kept.to(x.dtype) * self.scale)
        if self.examples is not None:
            x = x * self.examples.to(x.dtype)[:, None, None]
        return x


class BlockMasks(NamedTuple):
    """The masks of a block's two residual branches."""

    attention: Mask
    mlp: Mask


class StepMasks(NamedTuple):
    """All masks of a training step."""

    embedding: Mask
    blocks: list[BlockMasks]


def draw_masks(config: TransformerConfig, like: Float[Tensor, "b s c"]) -> StepMasks | None:
    """Masks for a stream shaped as `like`, from torch's global random numbers; None if all is kept.

    The share of examples that a branch drops rises linearly, to `stochastic_depth` in the last
    block.
    """
    if not (config.dropout or config.stochastic_depth):
        return None
    branches = 2 * config.depth
    shape = (like.shape[0], like.shape[1], like.shape[2])
    embedding, masks = Mask(), [Mask()] * branches
    if config.dropout:
        scale = 1 / (1 - config.dropout)
        kept = random_masks(1 + branches, shape, config.dropout, like.device)
        embedding, *masks = [Mask(own, scale) for own in kept.unbind()]
    if config.stochastic_depth:
        block = torch.arange(branches, device=like.device) // 2 + 1
        rates = (config.stochastic_depth / config.depth * block)[:, None]
        uniform = torch.rand(branches, shape[0], device=like.device)
        factors = (uniform >= rates) / (1 - rates)
        masks = [
            mask._replace(examples=own) for mask, own in zip(masks, factors.unbind(), strict=True)
        ]
    pairs = zip(masks[::2], masks[1::2], strict=True)
    return StepMasks(embedding, [BlockMasks(*pair) for pair in pairs])

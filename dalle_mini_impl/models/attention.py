"""Which positions see which: attention patterns over a stream of text, then image codes.

The stream is `text` positions followed by image positions in row-major order over a square grid.
Every pattern is causal and lets image positions see all of the text; they differ in which earlier
image positions an image position sees (Ramesh et al. 2021, arXiv 2102.12092, Appendix B.1).
"""

from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from dalle_mini_impl.kernels.decode_attention import CacheView

Pattern = Literal["full", "row", "column", "convolution"]


def pattern_mask(
    pattern: Pattern, text: int, length: int, grid: int, window: int = 11
) -> Bool[Tensor, "s s"]:
    """The mask of one pattern, True where a query (row) may see a key (column).

    text: positions before the first image position; length: all positions; grid: side of the
    image grid; window: side of the convolution pattern's neighborhood, odd.
    """
    position = torch.arange(length, device="cpu")  # also where the model is built on `meta`
    query, key = position[:, None], position[None, :]
    causal = query >= key
    if pattern == "full":
        return causal
    if pattern == "row":
        # The previous `grid` positions: the row so far, and what is left of the row above.
        near = query - key <= grid
    elif pattern == "column":
        near = (query - key) % grid == 0
    else:
        rows = (query - text) // grid - (key - text) // grid
        columns = ((query - text) % grid - (key - text) % grid).abs()
        near = (rows <= window // 2) & (columns <= window // 2)
    return causal & (near | (key < text))


def dalle_patterns(depth: int) -> list[Pattern]:
    """The paper's order: column where (i - 2) mod 4 = 0 (i from 1), else row; convolution last."""
    patterns: list[Pattern] = ["column" if (i - 2) % 4 == 0 else "row" for i in range(1, depth)]
    return [*patterns, "convolution"]


class FullVisibility(nn.Module):
    """Every position sees all before it."""

    mask = None

    def view(
        self,
        index: Int[Tensor, "1"],
        window: Int[Tensor, "r"],
        text: int,
        prefix_rows: Int[Tensor, "b"] | None,
    ) -> CacheView:
        """What the code at `index` reads of the cache when positions 0 … r-1 are looked at."""
        mask = (window <= text + index)[None]
        return CacheView(slice(0, window.shape[0]), mask, text, prefix_rows)


class PatternVisibility(nn.Module):
    """A position sees the text and what its pattern shows of the image."""

    mask: Tensor
    near: Tensor
    is_near: Tensor

    def __init__(self, pattern: Pattern, text: int, length: int, grid: int):
        super().__init__()
        mask = pattern_mask(pattern, text, length, grid)
        near, is_near = visible_positions(mask[text:])
        # They follow from the configuration, so they are not saved with the weights.
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("near", near, persistent=False)
        self.register_buffer("is_near", is_near, persistent=False)

    def view(
        self,
        index: Int[Tensor, "1"],
        window: Int[Tensor, "r"],
        text: int,
        prefix_rows: Int[Tensor, "b"] | None,
    ) -> CacheView:
        """What the code at `index` reads of the cache."""
        is_near = self.is_near[index]
        positions = torch.cat((torch.arange(text, device=index.device), self.near[index][0]))
        mask = torch.cat((is_near.new_ones(1, text), is_near), dim=1)
        return CacheView(positions, mask, text, prefix_rows)


def visible_positions(
    mask: Bool[Tensor, "q s"],
) -> tuple[Int[Tensor, "q m"], Bool[Tensor, "q m"]]:
    """For each image query, the image positions it sees, padded to the largest number.

    mask: the image queries' rows of a pattern mask, whose first s - q columns are text. Returns
    positions, and which of them are real.
    """
    text = mask.shape[1] - mask.shape[0]
    nearby = mask[:, text:]
    most = int(nearby.sum(1).max())
    is_near, order = nearby.long().sort(dim=1, descending=True, stable=True)
    return order[:, :most] + text, is_near[:, :most].bool()

"""Who sees whom: attention patterns over a text-then-image stream, as functions that return masks.

The stream is `text` positions followed by image positions in row-major order over a square grid.
Every pattern is causal and lets image positions see all of the text; they differ in which earlier
image positions an image position sees (Ramesh et al. 2021, arXiv 2102.12092, Appendix B.1).
"""

from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

Pattern = Literal["full", "row", "column", "convolution"]


def pattern_mask(
    pattern: Pattern, text: int, length: int, grid: int, window: int = 11
) -> Bool[Tensor, "s s"]:
    """The mask of one pattern, True where a query (row) may see a key (column).

    text: positions before the first image position; length: all positions; grid: side of the
    image grid; window: side of the convolution pattern's neighbourhood, odd.
    """
    position = torch.arange(length)
    causal = position[:, None] >= position[None, :]
    if pattern == "full":
        return causal
    query, key = position[:, None] - text, position[None, :] - text
    distance = query - key
    if pattern == "row":
        # The previous `grid` positions: the row so far and what of the row above is still open.
        near = distance <= grid
    elif pattern == "column":
        near = distance % grid == 0
    else:
        rows = torch.div(query, grid, rounding_mode="floor")
        rows = rows - torch.div(key, grid, rounding_mode="floor")
        columns = (query % grid - key % grid).abs()
        near = (rows <= window // 2) & (columns <= window // 2)
    return causal & (near | (key < 0))


def dalle_patterns(depth: int) -> list[Pattern]:
    """The paper's order: column where (i - 2) mod 4 = 0 (i from 1), else row; convolution last."""
    patterns: list[Pattern] = ["column" if (i - 2) % 4 == 0 else "row" for i in range(1, depth)]
    return [*patterns, "convolution"]

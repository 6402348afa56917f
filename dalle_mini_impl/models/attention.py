"""Who sees whom: attention patterns over a text-then-image stream, as functions that return masks.

The stream is `text` positions followed by image positions in row-major order over a square grid.
Every pattern is causal and lets image positions see all of the text; they differ in which earlier
image positions an image position sees (Ramesh et al. 2021, arXiv 2102.12092, Appendix B.1).
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

Pattern = Literal["full", "row", "column", "convolution"]


def pattern_mask(
    pattern: Pattern, text: int, length: int, grid: int, window: int = 11
) -> Bool[Tensor, "s s"]:
    """The mask of one pattern, True where a query (row) may see a key (column).

    text: positions before the first image position; length: all positions; grid: side of the
    image grid; window: side of the convolution pattern's neighborhood, odd.
    """
    position = torch.arange(length, device="cpu")  # also where the model is built without contents
    return sight(pattern, text, grid, window)(position[:, None], position[None, :])


def block_mask(
    pattern: Pattern,
    text: int,
    length: int,
    grid: int,
    window: int = 11,
    device: torch.device | str = "cpu",
) -> BlockMask:
    """The same mask for FlexAttention, which skips blocks of positions that see nothing."""
    sees = sight(pattern, text, grid, window)
    return create_block_mask(
        lambda b, h, query, key: sees(query, key), None, None, length, length, device=device
    )


def sight(
    pattern: Pattern, text: int, grid: int, window: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """Whether a query's position may see a key's, as a function of both that FlexAttention traces.

    Plain lambdas: it counts arguments and cannot trace what checks shapes.
    """
    near = window // 2
    if pattern == "full":
        return lambda query, key: query >= key
    if pattern == "row":
        # The previous `grid` positions: the row so far and what of the row above is still open.
        return lambda query, key: (query >= key) & ((query - key <= grid) | (key < text))
    if pattern == "column":
        return lambda query, key: (query >= key) & (((query - key) % grid == 0) | (key < text))
    return lambda query, key: (
        (query >= key)
        & (
            (
                ((query - text) // grid - (key - text) // grid <= near)
                & (((query - text) % grid - (key - text) % grid).abs() <= near)
            )
            | (key < text)
        )
    )


def dalle_patterns(depth: int) -> list[Pattern]:
    """The paper's order: column where (i - 2) mod 4 = 0 (i from 1), else row; convolution last."""
    patterns: list[Pattern] = ["column" if (i - 2) % 4 == 0 else "row" for i in range(1, depth)]
    return [*patterns, "convolution"]

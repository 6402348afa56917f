"""What is maximized over the latents."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Objective:
    """Images to decode, their score and a penalty; all are differentiable."""

    decode: Callable[[Tensor], Tensor]
    """Latents `b d g g` to images `b 3 h w` in [0, 1]."""
    score: Callable[[Tensor], Tensor]
    """Images `m 3 size size` to one number each; higher is better."""
    size: int | None = None
    """Side of the images that are scored; that of the decoded images if None."""
    penalty: Callable[[Tensor], Tensor] | None = None
    """Latents to one number each, subtracted from the score."""


def total_variation(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b"]:
    """Mean absolute difference of neighboring pixels, both ways."""
    across = images.diff(dim=-1).abs().mean(dim=(1, 2, 3))
    return across + images.diff(dim=-2).abs().mean(dim=(1, 2, 3))

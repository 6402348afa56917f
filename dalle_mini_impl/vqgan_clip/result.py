"""What a painting comes to: the best of each row so far, and at the end."""

from dataclasses import dataclass, fields

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

Record = dict[str, int | float]
"""Numbers of one step by name."""


@dataclass(frozen=True)
class Best:
    """The best of each row, by the held-out score less the penalties."""

    objective: Float[Tensor, "b"]
    latents: Float[Tensor, "b d g g"]
    images: Float[Tensor, "b 3 h w"]
    scores: Float[Tensor, "b"]
    """Held-out scores, without penalties."""
    steps: Int[Tensor, "b"]
    """The step at which each was found; 0 is the start."""
    first_images: Float[Tensor, "b 3 h w"]
    first_scores: Float[Tensor, "b"]

    def or_better(self, other: "Best") -> "Best":
        """Row by row the other where it is better; the start stays."""
        better = other.objective > self.objective
        rows = better[:, None, None, None]
        return Best(
            torch.where(better, other.objective, self.objective),
            torch.where(rows, other.latents, self.latents),
            torch.where(rows, other.images, self.images),
            torch.where(better, other.scores, self.scores),
            torch.where(better, other.steps, self.steps),
            self.first_images,
            self.first_scores,
        )

    def of_groups(self, rows: int) -> "Best":
        """The best of n alternatives for each of `rows`, the rows varying fastest."""
        winner = rearrange(self.objective, "(n b) -> n b", b=rows).argmax(dim=0)
        chosen = winner * rows + torch.arange(rows, device=winner.device)
        return Best(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True)
class OptimizeResult(Best):
    """The best of each row, and how it came about."""

    history: tuple[Record, ...]
    interrupted: bool

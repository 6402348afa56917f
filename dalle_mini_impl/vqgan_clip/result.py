"""The best latents of each row, during the optimization and at its end."""

from dataclasses import dataclass, fields, replace

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

StepMetrics = dict[str, int | float]
"""Numbers of one step by name."""


@dataclass(frozen=True)
class Best:
    """The best of each row, by the held-out score less the penalties."""

    value: Float[Tensor, "b"]
    latents: Float[Tensor, "b d g g"]
    images: Float[Tensor, "b 3 h w"]
    scores: Float[Tensor, "b"]
    """Held-out scores, without penalties."""
    steps: Int[Tensor, "b"]
    """The step at which each was found; 0 is the start."""
    start_images: Float[Tensor, "b 3 h w"]
    start_scores: Float[Tensor, "b"]
    start_value: Float[Tensor, "b"]

    def or_better(self, other: "Best") -> "Best":
        """Row by row the other where it is better; the start stays."""
        better = other.value > self.value
        rows = better[:, None, None, None]
        return replace(
            self,
            value=torch.where(better, other.value, self.value),
            latents=torch.where(rows, other.latents, self.latents),
            images=torch.where(rows, other.images, self.images),
            scores=torch.where(better, other.scores, self.scores),
            steps=torch.where(better, other.steps, self.steps),
        )

    def best_of_groups(self, rows: int) -> "Best":
        """The best of n alternatives for each of `rows`, the rows varying fastest."""
        winner = rearrange(self.value, "(n b) -> n b", b=rows).argmax(dim=0)
        chosen = winner * rows + torch.arange(rows, device=winner.device)
        return Best(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True)
class OptimizeResult(Best):
    """The best of each row, and the metrics of every step."""

    history: tuple[StepMetrics, ...]
    interrupted: bool

"""What a painting comes to: the best of each row so far, and at the end."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

Record = dict[str, int | float]
"""Numbers of one step by name."""


@dataclass(frozen=True)
class Best:
    """The best of each row, by the score of the whole picture less the penalties."""

    objective: Float[Tensor, "b"]
    latents: Float[Tensor, "b d g g"]
    images: Float[Tensor, "b 3 h w"]
    scores: Float[Tensor, "b"]
    """Scores of the whole pictures, without penalties."""
    steps: Int[Tensor, "b"]
    """The step at which each was found; 0 is the start."""
    first_images: Float[Tensor, "b 3 h w"]
    first_scores: Float[Tensor, "b"]

    @classmethod
    def of(
        cls,
        best: "Best | None",
        step: int,
        latents: Float[Tensor, "b d g g"],
        images: Float[Tensor, "b 3 h w"],
        scores: Float[Tensor, "b"],
        objective: Float[Tensor, "b"],
    ) -> "Best":
        """The best after one more step."""
        latents, images = latents.detach().clone(), images.detach()
        steps = torch.full((len(scores),), step, device=scores.device)
        if best is None:
            return cls(objective, latents, images, scores, steps, images, scores)
        better = objective > best.objective
        rows = better[:, None, None, None]
        return cls(
            torch.where(better, objective, best.objective),
            torch.where(rows, latents, best.latents),
            torch.where(rows, images, best.images),
            torch.where(better, scores, best.scores),
            torch.where(better, steps, best.steps),
            best.first_images,
            best.first_scores,
        )


@dataclass(frozen=True)
class Optimised(Best):
    """The best of each row, and how it came about."""

    history: tuple[Record, ...]
    interrupted: bool

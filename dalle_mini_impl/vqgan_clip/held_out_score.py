"""Which latents are better, by cutouts that the latents are not optimized for."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dalle_mini_impl.vqgan_clip.config import OptimizeConfig
from dalle_mini_impl.vqgan_clip.cutouts import make_cutouts, random_cutouts
from dalle_mini_impl.vqgan_clip.objective import Objective, total_variation
from dalle_mini_impl.vqgan_clip.result import Best

SEED = 2**31 - 1
"""Of the held-out cutouts: the same for every image, so that scores can be compared."""


class HeldOutScore:
    """Scores latents by the mean over fixed cutouts that are not cropped."""

    def __init__(self, objective: Objective, settings: OptimizeConfig):
        self.objective, self.settings = objective, settings
        changes = {"count": max(settings.held_out, 1), "whole": 1.0}
        self.cutouts = random_cutouts(
            settings.cutouts.model_copy(update=changes), torch.Generator().manual_seed(SEED)
        )

    @torch.no_grad()
    def __call__(
        self,
        step: int,
        latents: Float[Tensor, "b d g g"],
        cost: Callable[[Tensor], Tensor] | None = None,
        images: Float[Tensor, "b 3 h w"] | None = None,
    ) -> Best:
        """Each row with its score.

        cost: subtracted from the score, as the penalty is. images: if they are already decoded.
        """
        latents = latents.detach().clone()
        images = self.objective.decode(latents) if images is None else images.detach()
        scores = self._scores(images)
        value = scores - self.settings.total_variation * total_variation(images)
        for each in (self.objective.penalty, cost):
            if each is not None:
                value = value - each(latents)
        steps = torch.full((len(scores),), step, device=scores.device)
        return Best(value, latents, images, scores, steps, images, scores, value)

    def _scores(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b"]:
        score, size = self.objective.score, self.objective.size or images.shape[-1]
        if self.settings.held_out == 0:
            if images.shape[-1] != size:
                images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
            return score(images).to(images.device)
        total = torch.zeros(len(images), device=images.device)
        for part in self.cutouts.split(self.settings.cutouts.chunk):
            shown = make_cutouts(images, part, size)
            total += score(shown).reshape(-1, len(images)).sum(dim=0).to(total)
        return total / len(self.cutouts)

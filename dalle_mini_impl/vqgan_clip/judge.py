"""Which latents are better: by views that nothing was pushed along."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dalle_mini_impl.vqgan_clip.config import OptimizeConfig
from dalle_mini_impl.vqgan_clip.cutouts import cut, random_views
from dalle_mini_impl.vqgan_clip.result import Best

SEED = 2**31 - 1
"""Of the held-out views: the same for every image, so that scores can be compared."""


class Judge:
    """Scores latents by the mean over a fixed set of whole, slightly changed views."""

    def __init__(
        self,
        decode: Callable[[Tensor], Tensor],
        score: Callable[[Tensor], Tensor],
        settings: OptimizeConfig,
        size: int | None,
        penalty: Callable[[Tensor], Tensor] | None,
    ):
        self.decode, self.score, self.size, self.penalty = decode, score, size, penalty
        self.settings = settings
        changes = {"count": max(settings.held_out, 1), "whole": 1.0}
        self.views = random_views(
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
        """Each row as its own best; `images`, where they are already decoded."""
        latents = latents.detach().clone()
        images = self.decode(latents) if images is None else images.detach()
        scores = self._scores(images)
        objective = scores - self.settings.total_variation * total_variation(images)
        for each in (self.penalty, cost):
            if each is not None:
                objective = objective - each(latents)
        steps = torch.full((len(scores),), step, device=scores.device)
        return Best(objective, latents, images, scores, steps, images, scores)

    def _scores(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b"]:
        size = self.size or images.shape[-1]
        if self.settings.held_out == 0:
            if images.shape[-1] != size:
                images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
            return self.score(images).to(images.device)
        total = torch.zeros(len(images), device=images.device)
        chunk = self.settings.cutouts.chunk
        for at in range(0, len(self.views), chunk):
            shown = cut(images, self.views[at : at + chunk], size)
            total += self.score(shown).reshape(-1, len(images)).sum(dim=0).to(total)
        return total / len(self.views)


def total_variation(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b"]:
    """Mean absolute difference of neighboring pixels, both ways."""
    across = images.diff(dim=-1).abs().mean(dim=(1, 2, 3))
    return across + images.diff(dim=-2).abs().mean(dim=(1, 2, 3))

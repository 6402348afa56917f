"""A transformer as a prior over codes: their likelihood, and likelier codes close to given ones.

The gradient of an autoregressive likelihood is no help from noise: after an impossible code every
next one is impossible too. So the transformer samples the codes again, each one from
p(code | codes before) · exp(-weight · distance to the current latent). What the score asks for
stays, and the rest becomes plausible.
"""

from collections.abc import Callable

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from dalle_mini_impl.models.dalle import Dalle
from dalle_mini_impl.sampling.config import SamplingConfig
from dalle_mini_impl.sampling.draw import DrawParameters, draw
from dalle_mini_impl.vqgan_clip.code_space import CodeSpace
from dalle_mini_impl.vqgan_clip.config import CodePriorConfig


class CodePrior:
    """Likelihood and proposals of a transformer, with captions or without."""

    def __init__(
        self, dalle: Dalle, space: CodeSpace, captions: Int[Tensor, "c t"], config: CodePriorConfig
    ):
        """captions: one for all images or one for each; all padding means no caption."""
        self.dalle, self.space, self.captions, self.config = dalle, space, captions, config

    @torch.no_grad()
    def log_likelihood(self, latents: Float[Tensor, "b d g g"]) -> Float[Tensor, "b"]:
        """log p of each row's nearest codes, in nats per code."""
        codes = self.space.codes(latents)
        return self.dalle.log_likelihood(self._captions(len(codes)), codes).mean(dim=1)

    @torch.no_grad()
    def propose(
        self, latents: Float[Tensor, "b d g g"], progress: float, generator: torch.Generator
    ) -> Float[Tensor, "m d g g"]:
        """`count` proposals near each row, m = count · b, the rows varying fastest.

        progress: in [0, 1]; early proposals stay closer than late ones.
        """
        rows = repeat(latents, "b d h w -> (n b) d h w", n=self.config.count)
        weights = self.distance_weights(len(rows), progress, generator).to(latents)
        biases = [-weights[:, :, None] * each for each in self.space.distances(rows)]
        dalle = self.dalle
        draws = (*weights.shape, len(biases))
        noise = torch.rand(draws, generator=generator).to(latents)
        captions = self._captions(len(rows))
        return self.space.from_codes(sample_near(dalle, captions, biases, noise))

    def distance_weights(
        self, rows: int, progress: float, generator: torch.Generator
    ) -> Float[Tensor, "m n"]:
        """The weight of the distance at each position: low in a random rectangle, high outside.

        Half of the rectangles cover the whole image.
        """
        config, grid = self.config, self.dalle.grid
        shares = torch.rand(rows, 6, generator=generator)
        whole = shares[:, 0] < 0.5
        least = min(2, grid)
        sides = least + (shares[:, 1:3] * (grid - least + 1)).floor()
        sides[whole] = grid
        corners = (shares[:, 3:5] * (grid - sides + 1)).floor()
        axis = torch.arange(grid)
        inside = (axis >= corners[:, :, None]) & (axis < (corners + sides)[:, :, None])
        drawn = config.min_weight * (config.max_weight / config.min_weight) ** shares[:, 5]
        drawn = drawn * config.early_factor ** (1 - progress)
        free = inside[:, 0, :, None] & inside[:, 1, None, :]
        weights = torch.where(
            free, drawn[:, None, None], max(config.outside_weight, config.max_weight)
        )
        return rearrange(weights, "m h w -> m (h w)")

    def cost(self, weight: float) -> Callable[[Tensor], Tensor]:
        """A function from latents to `weight` · -log p per code."""
        return lambda latents: -weight * self.log_likelihood(latents)

    def _captions(self, rows: int) -> Int[Tensor, "m t"]:
        return self.captions.repeat(rows // len(self.captions), 1)


def sample_near(
    dalle: Dalle,
    captions: Int[Tensor, "m t"],
    biases: list[Float[Tensor, "m n _"]],
    noise: Float[Tensor, "m n draws"],
) -> Int[Tensor, "m n"]:
    """Codes drawn one after the other, with a bias on the logits of each position.

    biases: one for each factor of a code, as is the last axis of `noise`.
    """
    parameters = DrawParameters.of(SamplingConfig(), captions.device)
    rows, length = noise.shape[:2]
    cache = dalle.empty_cache(rows)
    hidden = dalle.prefill(captions, cache)
    places = torch.arange(dalle.length, device=captions.device)
    # A grid row that stands for what is above the image, then the image's codes.
    codes = torch.full((rows, dalle.grid + length), dalle.code_count, device=captions.device)
    for index in range(length):
        factors = iter(biases)

        def choose(logits: Tensor, uniform: Tensor) -> Tensor:
            return draw(logits + next(factors)[:, index], uniform, parameters)  # noqa: B023

        codes[:, dalle.grid + index] = dalle.image_head.draw(hidden, noise[:, index], choose)
        if index + 1 < length:
            code, above = codes[:, dalle.grid + index], codes[:, index + 1]
            window = places[: dalle.text_length + index + 1]
            hidden = dalle.step(code, above, places[index : index + 1], cache, window)
    return codes[:, dalle.grid :]

"""The parts of the sampling loop: its state, the prefill, and one step.

All that the images' codes need lies in buffers of fixed size that a step reads and writes in place,
at an index that is itself a tensor. So one compiled step serves every position, caption and seed,
and nothing goes to the host before the end.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dalle_mini_impl.models.dalle import Dalle
from dalle_mini_impl.models.transformer import KVCache
from dalle_mini_impl.sampling.config import SamplingConfig
from dalle_mini_impl.sampling.draw import (
    DrawParameters,
    draw,
    guidance_scales,
    guide,
    uniform_noise,
)


class DecodeState(NamedTuple):
    """Images being decoded. The cache has a row for each, and with guidance a negative row too."""

    cache: KVCache
    codes: Int[Tensor, "b total"]
    """A grid row that stands for what is above the image, then the image's codes."""
    code_index: Int[Tensor, "1"]
    """Index in the image of the code that the next step feeds."""
    given: Int[Tensor, "b n"]
    """Codes to keep, -1 where free."""
    noise: Float[Tensor, "b n draws"]
    scales: Float[Tensor, "n"]
    """Guidance scale of each code."""
    parameters: DrawParameters
    guided: bool
    prefix_rows: Int[Tensor, "rows"]
    """For each row of the cache the first row with the same text."""

    def per_row(self) -> list[Tensor]:
        """The buffers whose first size is the number of images, or of rows."""
        caches = [tensor for layer in self.cache.layers for tensor in layer]
        return [*caches, self.codes, self.given, self.noise, self.prefix_rows]


def prefill(
    model: Dalle,
    captions: Int[Tensor, "c t"],
    seeds: Sequence[int],
    config: SamplingConfig,
    given: Int[Tensor, "n"] | None = None,
    padding: int = 0,
    negative: Int[Tensor, "1 t"] | None = None,
) -> tuple[DecodeState, Float[Tensor, "rows w"]]:
    """A state with the text in its cache, and what the first code is drawn from.

    Each caption runs once and the negative caption once for all. padding: further rows, to fill a
    batch; they repeat the last caption. negative: what guidance moves away from, None for the null
    caption.
    """
    device, images, length = captions.device, len(seeds) + padding, model.image_length
    guided = config.guidance != 1
    negative = torch.zeros_like(captions[:1]) if negative is None else negative
    texts = torch.cat((captions, negative)) if guided else captions
    each = len(seeds) // len(captions)
    rows = (torch.arange(images, device=device) // each).clamp(max=len(captions) - 1)
    if guided:
        rows = torch.cat((rows, torch.full_like(rows, len(captions))))
    prefix = model.empty_cache(len(texts), model.text_length)
    features = model.prefill(texts, prefix)
    # One longer than the longest window: if the two sizes were ever equal, a compiler would take
    # the window's length for a constant.
    cache = model.empty_cache(len(rows), model.length + 1)
    cache.copy_prefix(prefix, rows)

    noise = uniform_noise(seeds, length, model.image_head.draws).to(device)
    free = torch.full((length,), -1, device=device) if given is None else given.to(device)
    state = DecodeState(
        cache,
        torch.full((images, model.grid + length), model.code_count, device=device),
        torch.zeros(1, dtype=torch.long, device=device),
        free.expand(images, -1).clone(),
        torch.cat((noise, noise.new_zeros(padding, *noise.shape[1:]))),
        guidance_scales(config, length).to(device),
        DrawParameters.of(config, device),
        guided,
        torch.searchsorted(rows, rows),  # rows are sorted: the first of each text
    )
    return state, features[rows]


def advance(model: Dalle, state: DecodeState, window: Int[Tensor, "r"]) -> None:
    """One step: feed each image's code at `position` and draw the next one."""
    index = state.code_index
    code = state.codes.index_select(1, index + model.grid)[:, 0]
    above = state.codes.index_select(1, index + 1)[:, 0]
    if state.guided:
        code, above = code.repeat(2), above.repeat(2)
    features = model.step(code, above, index, state.cache, window, state.prefix_rows)
    draw_code(model, state, features, index + 1)
    index.add_(1)


def draw_code(
    model: Dalle, state: DecodeState, features: Float[Tensor, "rows w"], at: Int[Tensor, "1"]
) -> None:
    """Draw the code at `at` of each image into `codes`, or keep the given one."""

    def choose(logits: Tensor, uniform: Tensor) -> Tensor:
        logits = logits.float()
        if state.guided:
            conditional, negative = logits.chunk(2)
            logits = guide(conditional, negative, state.scales[at])
        return draw(logits, uniform, state.parameters)

    uniform = state.noise.index_select(1, at)[:, 0]
    code = model.image_head.draw(features, uniform, choose)
    given = state.given.index_select(1, at)[:, 0]
    code = torch.where(given >= 0, given, code)
    state.codes.index_copy_(1, at + model.grid, code[:, None])

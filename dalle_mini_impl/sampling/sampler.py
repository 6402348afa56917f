"""The decoding engine: codes of many images at once, for captions whose text runs only once.

All that the images' codes need lies in buffers of fixed size (`Streams`) that a step reads and
writes in place, at a position that is itself a tensor: so one compiled step serves every position,
caption and seed (`compiled_steps`), and nothing goes to the host before the end.
"""

import copy
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dalle_mini_impl.kernels.linear import cast_linears_to_bf16
from dalle_mini_impl.models.dalle import Dalle
from dalle_mini_impl.models.transformer import KVCache
from dalle_mini_impl.precision import Precision, choose_precision
from dalle_mini_impl.sampling.compiled.steps import CompiledSteps, padded_rows
from dalle_mini_impl.sampling.draw import (
    Drawing,
    SamplingConfig,
    draw,
    guidance_scales,
    guide,
    uniform_noise,
)


class Streams(NamedTuple):
    """Images being decoded. The cache has a row for each; guided, then a null row for each."""

    cache: KVCache
    codes: Int[Tensor, "b total"]
    """A grid row that stands for what is above the image, then the image's codes."""
    position: Int[Tensor, "1"]
    """The code that the next step feeds."""
    given: Int[Tensor, "b n"]
    """Codes to keep, -1 where free."""
    noise: Float[Tensor, "b n draws"]
    scales: Float[Tensor, "n"]
    """Guidance scale of each code."""
    drawing: Drawing
    guided: bool
    leaders: Int[Tensor, "rows"]
    """For each row of the cache the first with its text."""


class Engine(NamedTuple):
    """A model in one precision, and its steps, eager or compiled."""

    model: Dalle
    steps: CompiledSteps

    @classmethod
    def of(cls, model: Dalle) -> "Engine":
        """With steps that have run nothing yet."""
        return cls(model, CompiledSteps(model, advance, rows_of))


class CodeSampler:
    """Samples codes from one transformer, on the device of its weights.

    What it compiles serves its later calls until weights change.
    """

    def __init__(self, model: Dalle):
        self.model = model
        self.engines: dict[Precision, Engine] = {}
        self.weights: list[tuple[int, int]] = []

    def __call__(
        self,
        captions: Int[Tensor, "c t"],
        seeds: Sequence[int],
        config: SamplingConfig,
        given: Int[Tensor, "n"] | None = None,
    ) -> Int[Tensor, "b n"]:
        """Codes of b / c images for each of c captions, grouped by caption.

        seeds: one for each image; in fp32 an image depends on its caption and seed, not on its
        neighbors. given: codes that every image keeps (completion, inpainting), -1 where free.
        Raises ValueError where the captions do not divide the images.
        """
        images = len(seeds)
        if images == 0 or images % len(captions):
            raise ValueError(f"{images} seeds for {len(captions)} captions: give each as many")
        on_cpu = captions.device.type == "cpu"
        rows = images if on_cpu else padded_rows(images)
        filters = (config.temperature == 0, config.top_k, config.top_p < 1)
        kind = (min(rows, 2) if on_cpu else rows, config.guidance != 1, *filters)
        started = time.perf_counter()
        with torch.inference_mode(False), torch.no_grad():
            model, steps = self.engine(choose_precision(config.precision, captions.device))
            compiled = kind if steps.pays(kind, config.compile) else None
            padding = rows - images if compiled else 0
            streams, hidden = begin(model, captions, seeds, config, given, padding)
            draw_next(model, streams, hidden, streams.position)
            places = torch.arange(model.length, device=captions.device)
            steps.run(streams, places, model.text_length + 1, compiled)
            codes = streams.codes[:images, model.grid :].cpu().to(captions.device)
        if compiled is None:
            steps.account(kind, time.perf_counter() - started)
        return codes

    def engine(self, precision: Precision) -> Engine:
        """The model in that precision, as its weights are now, with its steps; under no_grad."""
        now = [(weight.data_ptr(), weight._version) for weight in self.model.parameters()]
        if now != self.weights:  # What was compiled holds the old ones.
            self.engines, self.weights = {}, now
        if precision not in self.engines:
            # In fp32 a copy too: torch would take the same model for the one it compiled before.
            model = copy.deepcopy(self.model).requires_grad_(False)
            if precision == "bf16":
                cast_linears_to_bf16(model)
            self.engines[precision] = Engine.of(model)
        return self.engines[precision]


def begin(
    model: Dalle,
    captions: Int[Tensor, "c t"],
    seeds: Sequence[int],
    config: SamplingConfig,
    given: Int[Tensor, "n"] | None = None,
    padding: int = 0,
) -> tuple[Streams, Float[Tensor, "rows w"]]:
    """Streams with their text in the cache, and what the first code is drawn from.

    Each caption runs once and the null caption once for all. padding: further rows, to fill a
    batch; they repeat the last caption.
    """
    device, images, length = captions.device, len(seeds) + padding, model.image_length
    guided = config.guidance != 1
    texts = torch.cat((captions, torch.zeros_like(captions[:1]))) if guided else captions
    each = len(seeds) // len(captions)
    rows = (torch.arange(images, device=device) // each).clamp(max=len(captions) - 1)
    if guided:
        rows = torch.cat((rows, torch.full_like(rows, len(captions))))
    prefix = model.empty_cache(len(texts), model.text_length)
    hidden = model.prefill(texts, prefix)
    # Longer than any window, which compiled code would take for a fixed size where they are equal.
    cache = model.empty_cache(len(rows), model.length + 1)
    cache.take(prefix, rows)
    leaders = torch.searchsorted(rows, rows)

    noise = uniform_noise(seeds, length, model.image_head.draws).to(device)
    free = torch.full((length,), -1, device=device) if given is None else given.to(device)
    streams = Streams(
        cache,
        torch.full((images, model.grid + length), model.code_count, device=device),
        torch.zeros(1, dtype=torch.long, device=device),
        free.expand(images, -1).clone(),
        torch.cat((noise, noise.new_zeros(padding, *noise.shape[1:]))),
        guidance_scales(config, length).to(device),
        Drawing.of(config, device),
        guided,
        leaders,
    )
    return streams, hidden[rows]


def rows_of(streams: Streams) -> list[Tensor]:
    """The buffers with a row for each stream or image."""
    alone = (streams.codes, streams.given, streams.noise, streams.leaders)
    return [*streams.cache.keys, *streams.cache.values, *alone]


def advance(model: Dalle, streams: Streams, window: Int[Tensor, "r"]) -> None:
    """One step: feed each image's code at `position` and draw the next one into `codes`."""
    index = streams.position
    code = streams.codes.index_select(1, index + model.grid)[:, 0]
    above = streams.codes.index_select(1, index + 1)[:, 0]
    if streams.guided:
        code, above = code.repeat(2), above.repeat(2)
    hidden = model.step(code, above, index, streams.cache, window, streams.leaders)
    draw_next(model, streams, hidden, index + 1)
    index.add_(1)


def draw_next(
    model: Dalle, streams: Streams, hidden: Float[Tensor, "rows w"], at: Int[Tensor, "1"]
) -> None:
    """Draw the code at `at` of each image into `codes`, or keep the given one."""

    def choose(logits: Tensor, uniform: Tensor) -> Tensor:
        logits = logits.float()
        if streams.guided:
            conditional, null = logits.chunk(2)
            logits = guide(conditional, null, streams.scales[at])
        return draw(logits, uniform, streams.drawing)

    uniform = streams.noise.index_select(1, at)[:, 0]
    code = model.image_head.draw(hidden, uniform, choose)
    given = streams.given.index_select(1, at)[:, 0]
    code = torch.where(given >= 0, given, code)
    streams.codes.index_copy_(1, at + model.grid, code[:, None])

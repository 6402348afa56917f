"""The sampling loop: codes of many images at once, for captions whose text runs only once."""

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from dalle_mini_impl.kernels.threads import threads_for
from dalle_mini_impl.models.dalle import Dalle
from dalle_mini_impl.models.transformer import cast_linears_to_bf16
from dalle_mini_impl.precision import Precision, choose_precision
from dalle_mini_impl.sampling.config import SamplingConfig
from dalle_mini_impl.sampling.decoding import advance, draw_code, prefill

if TYPE_CHECKING:
    from dalle_mini_impl.sampling.compiled.steps import CompiledSteps

Progress = Callable[[int, Tensor], None]
"""Called after each row of codes with the number of codes per image, and the codes (`b n`)."""


def sample_codes(
    model: Dalle,
    captions: Int[Tensor, "c t"],
    seeds: Sequence[int],
    config: SamplingConfig,
    given: Int[Tensor, "n"] | None = None,
    negative: Int[Tensor, "1 t"] | None = None,
    progress: Progress | None = None,
    compiled: "CompiledSteps | None" = None,
) -> Int[Tensor, "b n"]:
    """Codes of b / c images for each of c captions, grouped by caption.

    seeds: one for each image. given: known codes that every image keeps, -1 where they are to be
    sampled. negative: the caption that guidance moves away from, None for the null caption.
    compiled: steps that replace `advance`; their model must have the weights of `model`.
    """
    padding = 0 if compiled is None else compiled.padding(len(seeds))
    state, features = prefill(model, captions, seeds, config, given, padding, negative)
    draw_code(model, state, features, state.code_index)
    step = partial(advance, model, state) if compiled is None else compiled.bind(state)
    positions = torch.arange(model.length, device=captions.device)
    codes = state.codes[: len(seeds), model.grid :]
    for drawn in range(1, model.image_length):
        if progress is not None and drawn % model.grid == 0:
            progress(drawn, codes)
        step(positions[: model.text_length + drawn])
    if progress is not None:
        progress(model.image_length, codes)
    return codes


class CodeSampler:
    """Samples codes from one transformer, on the device of its weights.

    In fp32 an image depends on its caption and seed alone; in bf16 rounding may now and then draw
    another code in a batch of another size.
    """

    def __init__(self, model: Dalle):
        self.model = model
        self.low_precision: Dalle | None = None
        self.compiled: dict[Precision, CompiledSteps] = {}
        self.progress: Progress | None = None
        """Called where a call names no other."""

    def __call__(
        self,
        captions: Int[Tensor, "c t"],
        seeds: Sequence[int],
        config: SamplingConfig,
        given: Int[Tensor, "n"] | None = None,
        negative: Int[Tensor, "1 t"] | None = None,
        progress: Progress | None = None,
    ) -> Int[Tensor, "b n"]:
        """`sample_codes` in the precision, and eager or compiled, as `config` says.

        Raises ValueError where the captions do not divide the images.
        """
        if not seeds or len(seeds) % len(captions):
            raise ValueError(
                f"{len(seeds)} seeds for {len(captions)} captions: give each caption equally many"
            )
        precision = choose_precision(config.precision, captions.device)
        how = (captions, seeds, config, given, negative, progress or self.progress)
        with torch.inference_mode(False), torch.no_grad():
            if config.compile == "off":
                with threads_for(self._largest_product(config, len(seeds))):
                    return sample_codes(self._model_in(precision), *how)
            steps = self._compiled_steps(precision)
            with steps.choose(config, len(seeds)) as chosen:
                # Compiled steps have their number of threads built in.
                eager = threads_for(self._largest_product(config, len(seeds)))
                with eager if chosen is None else nullcontext():
                    codes = sample_codes(steps.model, *how, chosen)
                return codes.cpu().to(captions.device)  # waits for the GPU: `choose` times it

    def _largest_product(self, config: SamplingConfig, images: int) -> int:
        """Multiplications of a step's largest matrix product."""
        rows = images * 2 if config.guidance != 1 else images
        return rows * max(weight.numel() for weight in self.model.blocks.parameters())

    def _model_in(self, precision: Precision) -> Dalle:
        """The model, or a copy whose linear layers are in bf16, with its present weights."""
        if precision == "fp32":
            return self.model
        if self.low_precision is None:
            self.low_precision = in_bf16(self.model)
        torch._foreach_copy_(list(self.low_precision.parameters()), list(self.model.parameters()))
        return self.low_precision

    def _compiled_steps(self, precision: Precision) -> "CompiledSteps":
        """Steps for the present weights: compiled code holds a copy of them."""
        # Imported here because eager sampling needs none of it.
        from dalle_mini_impl.sampling.compiled.steps import CompiledSteps, weight_versions

        versions = weight_versions(self.model)
        steps = self.compiled.get(precision)
        if steps is None or steps.versions != versions:
            model = self.model if precision == "fp32" else in_bf16(self.model)
            steps = self.compiled[precision] = CompiledSteps(model, versions)
        return steps


def in_bf16(model: Dalle) -> Dalle:
    """A copy whose linear layers are in bf16."""
    lowered = copy.deepcopy(model).requires_grad_(False)
    cast_linears_to_bf16(lowered)
    return lowered

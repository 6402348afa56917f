"""Which decoding steps run compiled: `compile: auto` waits until compiling pays."""

import copy
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn

from dalle_mini_impl.models.dalle import Dalle
from dalle_mini_impl.sampling.config import SamplingConfig
from dalle_mini_impl.sampling.decoding import DecodeState, advance

if TYPE_CHECKING:
    from dalle_mini_impl.sampling.compiled.packages import StepPackages

PAYS_AFTER = 30.0
"""Seconds of eager decoding of one specialization after which `compile: auto` compiles it."""
LOADS_AFTER = 3.0
"""The same where an earlier process compiled it."""

WeightVersions = list[tuple[int, int]]


class Specialization(NamedTuple):
    """What compiled code cannot leave open; one compiled step serves all that share it."""

    rows: int
    """On a CPU 1, or 2 for several; on a GPU the padded number of images."""
    guided: bool
    greedy: bool
    top_k: int
    nucleus: bool

    @classmethod
    def of(cls, config: SamplingConfig, rows: int) -> "Specialization":
        """Of sampling so many rows as `config` says."""
        greedy, nucleus = config.temperature == 0, config.top_p < 1
        return cls(rows, config.guidance != 1, greedy, config.top_k, nucleus)


class CompiledSteps:
    """Steps of one model with the weights it has now, compiled where that pays."""

    def __init__(self, model: Dalle, versions: WeightVersions):
        self.model, self.versions = model, versions
        device = model.embedding.start.device.type
        self.on_cpu = device == "cpu"
        self.spent: defaultdict[Specialization, float] = defaultdict(float)
        self.key: Specialization | None = None
        self.graph_step: Callable[[DecodeState, Tensor], None] | None = None
        self.works = device in ("cpu", "cuda")

    @cached_property
    def packages(self) -> "StepPackages":
        """Of a copy of the model, since compiled code holds the weights, and these may change."""
        # Imported here, as below, because eager sampling needs none of it.
        from dalle_mini_impl.sampling.compiled.packages import StepPackages

        return StepPackages(
            copy.deepcopy(self.model).requires_grad_(False), advance, DecodeState.per_row
        )

    @contextmanager
    def choose(self, config: SamplingConfig, images: int) -> Iterator["CompiledSteps | None"]:
        """These steps where they pay for this call, else None, and the call's time is counted."""
        rows = min(images, 2) if self.on_cpu else images + self.padding(images)
        self.key = Specialization.of(config, rows)
        if self.pays(self.key, config.compile):
            yield self
            return
        started = time.perf_counter()
        yield None
        self.spent[self.key] += time.perf_counter() - started

    def pays(self, key: Specialization, wanted: str) -> bool:
        """Whether to compile, or to load what an earlier process compiled."""
        if not self.works:
            return False
        if wanted == "on" or self.spent[key] >= PAYS_AFTER:
            return True
        return self.spent[key] >= LOADS_AFTER and self.packages.at_hand(key)

    def padding(self, images: int) -> int:
        """Rows to add to a batch, so that a few compiled sizes serve all."""
        if self.on_cpu:
            return 0
        from dalle_mini_impl.sampling.compiled.cuda_graphs import padded_rows

        return padded_rows(images) - images

    def bind(self, state: DecodeState) -> Callable[[Int[Tensor, "r"]], None]:
        """A step of `state` as a function of its window.

        Where compiling fails, eager steps take over for good.
        """
        eager = partial(advance, self.model, state)
        compiled: Callable[[Tensor], None] | None = None

        def step(window: Int[Tensor, "r"]) -> None:
            nonlocal compiled
            if self.works:
                try:
                    compiled = compiled or self._compile(state)
                    return compiled(window)
                except Exception as error:
                    # Compilers fail in many ways, and before a step has run; a fault of the step
                    # itself comes back in eager mode.
                    self.works = False
                    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                    warnings.warn(f"decoding stays eager, compiling failed: {reason}", stacklevel=2)
            eager(window)

        return step

    def _compile(self, state: DecodeState) -> Callable[[Tensor], None]:
        if self.on_cpu:
            assert self.key is not None
            return self.packages.bind(self.key, state, torch.arange(self.model.length))
        from dalle_mini_impl.sampling.compiled.cuda_graphs import GraphedSteps, compile_for_graphs

        self.graph_step = self.graph_step or compile_for_graphs(
            partial(advance, copy.deepcopy(self.model).requires_grad_(False))
        )
        return GraphedSteps(self.graph_step, state)


def weight_versions(model: nn.Module) -> WeightVersions:
    """Changes whenever a weight is exchanged or written to."""
    return [(weight.data_ptr(), weight._version) for weight in model.parameters()]

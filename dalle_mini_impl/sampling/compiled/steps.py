"""Compiled decoding steps: when they pay, and eager ones otherwise.

Knows no model: a step is a function of buffers that it writes in place and of a window, the cached
positions 0 … r-1 that attention reads. On a CPU a compiled step leaves open the window's length, so
that early codes do not pay for the whole cache, and the number of rows (`step_packages`); on a GPU
a few windows are recorded as CUDA graphs.
"""

import warnings
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

from dalle_mini_impl.sampling.compiled.packages import Step, StepPackages, keep_what_torch_compiles

PAYS_AFTER = 30.0
"""Seconds of eager decoding of one kind after which `compile: auto` compiles it."""

LOADS_AFTER = 3.0
"""The same where an earlier process compiled it."""

KINDS = 64
"""Kinds of step (batch sizes, filters, models) that one process may compile for a GPU."""

GRAPH_REACH = 64
"""On a GPU windows are rounded up to multiples of this, each a CUDA graph of its own."""


class CompiledSteps:
    """Runs steps of different kinds, eager or compiled, and remembers what each has cost."""

    def __init__(self, model: nn.Module, step: Step, rows: Callable[[Any], Iterable[Tensor]]):
        """The model must stay as it is: compiled code holds its weights.

        rows: the buffers whose first size is the batch's, or a multiple of it.
        """
        self.eager = partial(step, model)
        self.packages = StepPackages(model, step, rows)
        self.compiled: Callable[[Any, Tensor], None] | None = None
        self.spent: defaultdict[Hashable, float] = defaultdict(float)
        self.works = True

    def pays(self, kind: Hashable, wanted: Literal["auto", "on", "off"]) -> bool:
        """Whether steps of this kind are to be compiled; `account` tells what they cost eager."""
        if wanted == "off" or not self.works:
            return False
        if wanted == "on" or self.spent[kind] >= PAYS_AFTER:
            return True
        return self.spent[kind] >= LOADS_AFTER and self.packages.at_hand(kind)

    def account(self, kind: Hashable, seconds: float) -> None:
        """Count what steps of a kind took in eager mode."""
        self.spent[kind] += seconds

    def run(
        self, buffers: Any, places: Int[Tensor, "s"], first: int, compiled: Hashable | None
    ) -> None:
        """All steps of `buffers`, the first reading `first` positions and each one more.

        places: 0 … s-1, all positions. compiled: the kind of step, None to run eagerly. Where
        compiling fails, eager steps take over for good.
        """
        reaches, done = range(first, len(places) + 1), 0
        if compiled is not None and len(reaches) > 0:
            try:
                for _ in self._compiled_steps(buffers, places, reaches, compiled):
                    done += 1
            except Exception as error:
                # Compilers fail in many ways, and before a step has run; a fault of the step
                # itself comes back in eager mode.
                self.works = False
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                warnings.warn(f"decoding stays eager, compiling failed: {reason}", stacklevel=2)
        for reach in reaches[done:]:
            self.eager(buffers, places[:reach])

    def _compiled_steps(
        self, buffers: Any, places: Tensor, reaches: range, kind: Hashable
    ) -> Iterator[None]:
        """Yields after each step."""
        if places.device.type == "cpu":
            yield from self.packages.run(kind, buffers, places, reaches)
            return
        keep_what_torch_compiles()
        step = self.compiled = self.compiled or torch.compile(
            self.eager, dynamic=False, fullgraph=True
        )
        with torch._dynamo.config.patch(recompile_limit=KINDS), torch.cuda.device(places.device):
            yield from graphed_steps(step, buffers, places, reaches)


def graphed_steps(
    step: Callable[[Any, Tensor], None], buffers: Any, places: Tensor, reaches: range
) -> Iterator[None]:
    """Steps on a GPU: a few windows, each recorded as a CUDA graph and replayed.

    That GPU must be the current one (`torch.cuda.device`): streams and graphs are its own.
    """
    graph, window, recorded = None, places, 0
    side, main = torch.cuda.Stream(), torch.cuda.current_stream()
    for reach in reaches:
        if graph is not None and reach <= recorded:
            graph.replay()
            yield
        else:
            # The window's first step runs as it is, which also warms up; recording runs none.
            recorded = min(-(-reach // GRAPH_REACH) * GRAPH_REACH, len(places))
            window = open_window(places, recorded)
            side.wait_stream(main)
            with torch.cuda.stream(side):
                step(buffers, window)
            main.wait_stream(side)
            yield
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step(buffers, window)


def open_window(places: Int[Tensor, "s"], reach: int) -> Int[Tensor, "r"]:
    """The first `reach` positions, marked as a size that compiled code leaves open."""
    window = places[:reach]
    torch._dynamo.mark_dynamic(window, 0)
    return window


def padded_rows(rows: int) -> int:
    """The batch that `rows` are padded to: 1, 2, 4, 6, 8, 12, 16, 24, … a few sizes serve all."""
    power = 1 << (rows - 1).bit_length()
    return power // 4 * 3 if power >= 8 and rows <= power // 4 * 3 else power

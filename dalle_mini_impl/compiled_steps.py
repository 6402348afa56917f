"""torch.compile for the decoding step: when it pays, what it is compiled with, and eager otherwise.

Knows no model: a step is a function of buffers that it writes in place and of a window, the cached
positions 0 … r-1 that attention reads. A compiled step leaves the window's length open, so that
early codes do not pay for the whole cache, and on a CPU the number of rows.
"""

import os
import shutil
import warnings
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

Step = Callable[[Any, Tensor], None]

PAYS_AFTER = 30.0
"""Seconds of eager decoding of one kind after which `compile: auto` compiles it."""

KINDS = 64
"""Kinds of step (batch sizes, filters, models) that one process may compile."""

GRAPH_REACH = 64
"""On a GPU windows are rounded up to multiples of this, each a CUDA graph of its own."""


class CompiledSteps:
    """Runs steps of different kinds, eager or compiled, and remembers what each has cost."""

    def __init__(self, step: Step, rows: Callable[[Any], Iterable[Tensor]]):
        """What the step computes with, apart from its buffers, must stay as it is.

        Compiled for a CPU it then keeps its weights in the order that the products want. rows: the
        buffers whose first size is the batch's.
        """
        self.eager = step
        self.rows = rows
        self.compiled: Step | None = None
        self.spent: defaultdict[Hashable, float] = defaultdict(float)
        self.works = True

    def pays(self, kind: Hashable, wanted: Literal["auto", "on", "off"]) -> bool:
        """Whether steps of this kind are to be compiled; `account` tells what they cost eager."""
        if wanted == "off" or not self.works:
            return False
        return wanted == "on" or self.spent[kind] >= PAYS_AFTER

    def account(self, kind: Hashable, seconds: float) -> None:
        """Count what steps of a kind took in eager mode."""
        self.spent[kind] += seconds

    def run(self, buffers: Any, places: Int[Tensor, "s"], first: int, compiled: bool) -> None:
        """All steps of `buffers`, the first reading `first` positions and each one more.

        places: 0 … s-1, all positions. Where compiling fails, eager steps take over for good.
        """
        reaches, done = range(first, len(places) + 1), 0
        if compiled and len(reaches) > 0:
            try:
                for _ in self._compiled_steps(buffers, places, reaches):
                    done += 1
            except Exception as error:
                # Compilers fail in many ways, and before a step has run; a fault of the step
                # itself comes back in eager mode.
                self.works = False
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                warnings.warn(f"decoding stays eager, compiling failed: {reason}", stacklevel=2)
        for reach in reaches[done:]:
            self.eager(buffers, places[:reach])

    def _compiled_steps(self, buffers: Any, places: Tensor, reaches: range) -> Iterator[None]:
        """Yields after each step."""
        # Before torch.compile, which sets it to a folder of its own.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder()))
        step = self.compiled = self.compiled or torch.compile(
            self.eager, dynamic=False, fullgraph=True
        )
        if places.device.type == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
            raise RuntimeError("no C++ compiler (g++) was found")
        with torch._dynamo.config.patch(recompile_limit=KINDS):
            if places.device.type == "cuda":
                with torch.cuda.device(places.device):
                    yield from graphed_steps(step, buffers, places, reaches)
                return
            # inductor takes oneDNN's packed products in fp32 only where the batch is left open.
            for buffer in self.rows(buffers):
                torch._dynamo.maybe_mark_dynamic(buffer, 0)
            # Tracing asks for freezing, before any option of torch.compile is read. What calls the
            # loops and products of a step is C++ too (not tried with an older torch): Python takes
            # a good part of its time.
            called_from_cpp = torch.__version__ >= "2.13"
            with torch._inductor.config.patch(freezing=True, cpp_wrapper=called_from_cpp):
                step(buffers, open_window(places, reaches[0]))
            yield
            with unguarded():
                for reach in reaches[1:]:
                    step(buffers, places[:reach])
                    yield


def graphed_steps(step: Step, buffers: Any, places: Tensor, reaches: range) -> Iterator[None]:
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


def unguarded() -> AbstractContextManager[object]:
    """Run what is compiled without asking at each call whether it fits, as the first call has.

    Asking is a good part of a small model's step of one row.
    """
    try:
        return torch.compiler.set_stance("default", skip_guard_eval_unsafe=True)
    except TypeError:  # a torch that cannot yet
        return nullcontext()


def open_window(places: Int[Tensor, "s"], reach: int) -> Int[Tensor, "r"]:
    """The first `reach` positions, marked as a size that compiled code leaves open."""
    window = places[:reach]
    torch._dynamo.mark_dynamic(window, 0)
    return window


def cache_folder() -> Path:
    """Where compiled steps are kept between runs: the user's own, since it is code that is run."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dalle_mini_impl" / "inductor"


def padded_rows(rows: int) -> int:
    """The batch that `rows` are padded to: 1, 2, 4, 6, 8, 12, 16, 24, … a few sizes serve all."""
    power = 1 << (rows - 1).bit_length()
    return power // 4 * 3 if power >= 8 and rows <= power // 4 * 3 else power

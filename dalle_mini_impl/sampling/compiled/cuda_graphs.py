"""Decoding steps on a GPU: a few windows, each recorded as a CUDA graph and replayed."""

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from dalle_mini_impl.sampling.compiled.cache import use_own_compile_cache
from dalle_mini_impl.sampling.decoding import DecodeState

MAX_SPECIALIZATIONS = 64
"""Batch sizes, filters and models that one process may compile."""
WINDOW_STEP = 64
"""Windows are rounded up to multiples of this, each a CUDA graph of its own."""


class GraphedSteps:
    """A step of one state as a function of its window; it replays a graph where one fits."""

    def __init__(self, step: Callable[[DecodeState, Tensor], None], state: DecodeState):
        """step: compiled by `compile_for_graphs`."""
        self.step, self.state = step, state
        self.longest = state.cache.layers[0].keys.shape[2] - 1
        self.side = torch.cuda.Stream(state.codes.device)
        self.graph: torch.cuda.CUDAGraph | None = None
        # A graph reads it at every replay, so it must live as long.
        self.window = torch.empty(0, dtype=torch.long)

    def __call__(self, window: Int[Tensor, "r"]) -> None:
        if self.graph is not None and len(window) <= len(self.window):
            self.graph.replay()
            return
        # Streams and graphs belong to the current GPU.
        with (
            torch.cuda.device(window.device),
            torch._dynamo.config.patch(recompile_limit=MAX_SPECIALIZATIONS),
        ):
            self._record(window)

    def _record(self, window: Int[Tensor, "r"]) -> None:
        """Run the window's first step as it is, which also warms up, then record one."""
        reach = min(-(-len(window) // WINDOW_STEP) * WINDOW_STEP, self.longest)
        # The step masks what lies beyond the filled part of the cache.
        self.window = torch.arange(reach, device=window.device)
        torch._dynamo.mark_dynamic(self.window, 0)
        main = torch.cuda.current_stream()
        self.side.wait_stream(main)
        with torch.cuda.stream(self.side):
            self.step(self.state, self.window)
        main.wait_stream(self.side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.step(self.state, self.window)


def compile_for_graphs(
    step: Callable[[DecodeState, Tensor], None],
) -> Callable[[DecodeState, Tensor], None]:
    """The step compiled for any window; one serves all states of a specialization."""
    use_own_compile_cache()
    return torch.compile(step, dynamic=False, fullgraph=True)


def padded_rows(rows: int) -> int:
    """The batch that `rows` are padded to: 1, 2, 4, 6, 8, 12, 16, 24, … a few sizes serve all."""
    power = 1 << (rows - 1).bit_length()
    return power // 4 * 3 if power >= 8 and rows <= power // 4 * 3 else power

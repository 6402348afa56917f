"""What the hardware allows, measured in the same run: matrix products and streams of weights."""

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.shape import Shape, Work
from benchmarks.timing import synchronize

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SQUARES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
IN_CACHE = 8 * 2**20
OUT_OF_CACHE = 512 * 2**20


class Floors:
    """Rates of one device at its current number of threads, each measured once and remembered."""

    def __init__(self, device: torch.device, quick: bool = False) -> None:
        self.device = device
        self.seconds = 0.02 if quick else 0.5
        self.squares = (64,) if quick else SQUARES[device.type]
        self.out_of_cache = 2**20 if quick else OUT_OF_CACHE
        self.products: dict[tuple[int, int, int, str], float] = {}
        self.bandwidths: dict[int, float] = {}

    def peak(self, precision: str) -> float:
        """FLOP/s of the best large square product."""
        return max(self.product(n, n, n, precision) for n in self.squares)

    def product(self, rows: int, inner: int, columns: int, precision: str) -> float:
        """FLOP/s of `rows` × `inner` times a weight of `columns` × `inner`, as nn.Linear has it."""
        key = (rows, inner, columns, precision)
        if key not in self.products:
            dtype = DTYPES[precision]
            x = torch.randn(rows, inner, device=self.device, dtype=dtype)
            weight = torch.randn(columns, inner, device=self.device, dtype=dtype)
            best = self._best(partial(F.linear, x, weight))
            self.products[key] = 2.0 * rows * inner * columns / best
        return self.products[key]

    def bandwidth(self, size: int) -> float:
        """Bytes/s at which a matrix–vector product reads `size` bytes of fp32 weights."""
        columns = min(4096, max(64, round((size / 4) ** 0.5)))
        rows = max(1, size // (4 * columns))
        actual = 4 * rows * columns
        if actual not in self.bandwidths:
            weight = torch.randn(rows, columns, device=self.device)
            x = torch.randn(columns, device=self.device)
            ways: list[Callable[[], Tensor]] = [
                partial(torch.mv, weight, x),
                partial(F.linear, x[None], weight),
            ]
            self.bandwidths[actual] = actual / min(self._best(way) for way in ways)
        return self.bandwidths[actual]

    def survey(self, shape: Shape, batch: int, precisions: tuple[str, ...]) -> dict[str, float]:
        """Rates by name: GFLOP/s of products, GB/s of streams, in and out of cache."""
        width, ffn_width = shape.width, shape.ffn_width
        products = ((width, 3 * width), (width, 2 * ffn_width), (ffn_width, width))
        tokens = batch * shape.tokens
        found: dict[str, float] = {}
        for precision in precisions:
            kind = f"{precision} GFLOP/s"
            for n in self.squares:
                found[f"{kind}, {n}×{n}×{n}"] = self.product(n, n, n, precision) / 1e9
            for rows in (tokens, 1, 16, 32, 64):
                for inner, columns in products:
                    rate = self.product(rows, inner, columns, precision) / 1e9
                    found[f"{kind}, {rows}×{inner}×{columns}"] = rate
        for name, size in (("in cache", IN_CACHE), ("out of cache", self.out_of_cache)):
            found[f"GB/s, matrix–vector product {name} ({size // 2**20} MiB)"] = (
                self.bandwidth(size) / 1e9
            )
        return found

    def _best(self, work: Callable[[], object]) -> float:
        """Seconds of the quickest call within the time given to each rate."""
        for _ in range(2):
            work()
        best, began = float("inf"), time.perf_counter()
        while True:
            synchronize(self.device)
            started = time.perf_counter()
            work()
            synchronize(self.device)
            now = time.perf_counter()
            best = min(best, now - started)
            if now - began > self.seconds:
                return best


def decoding_floor(
    shape: Shape,
    work: Work,
    rows: int,
    prompts: int,
    floors: Floors,
    precision: str,
) -> float:
    """Seconds that `shape.image` codes of `rows` streams take at the least.

    Each step reads the weights once and the filled part of the cache, and multiplies every row:
    the slower of the two counts. rows: streams (twice the images when guided); prompts:
    different captions, the null caption included, each of which is run once.
    """
    size = 2 if precision == "bf16" else 4
    weights = work.blocks + work.image_head
    rate = floors.peak(precision)
    seconds = 2.0 * prompts * shape.text * work.blocks / rate
    for step in range(1, shape.image):
        seen = shape.text + step
        cached = 2 * shape.depth * work.attention_width * rows * seen
        moved = size * (weights + cached) / floors.bandwidth(size * weights)
        multiplied = 2.0 * (rows * weights + cached) / rate
        seconds += max(moved, multiplied)
    return seconds

"""How many threads compute: one where the work is small."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dalle_mini_impl.kernels.force_plain import force_plain

SMALL_PRODUCT = 5_000_000
"""Multiplications of the largest product of a decoding step up to which one thread computes it."""


@contextmanager
def threads_for(multiplications: int) -> Iterator[None]:
    """Inside, as many threads compute as operators of this size are worth on a CPU.

    multiplications: of the largest product. Torch starts and ends each operator on all cores
    together. Where an operator takes less than 0.1 ms this gains little, and if another process
    has one of the cores, every operator waits until the system gives it back: a decoding step of
    the packaged model then took 15 to 30 times as long on two threads as on one.
    """
    if not is_small(multiplications):
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def is_small(multiplications: int) -> bool:
    """Whether one thread is enough."""
    return multiplications <= SMALL_PRODUCT and not force_plain()

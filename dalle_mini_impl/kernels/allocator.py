"""Keeps the memory that a step frees, since the next step asks for it again."""

import ctypes

from dalle_mini_impl.kernels.force_plain import force_plain

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt (malloc.h)."""


def keep_freed_memory() -> None:
    """Have glibc keep freed blocks below 32 MiB for the rest of the process.

    By default it returns large blocks to the system, which clears their pages before it hands them
    out again: up to 50,000 pages in a step of half a second. Other C libraries are left alone.
    """
    if force_plain():
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_MMAP_THRESHOLD, 2**25)  # the largest value it takes
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)

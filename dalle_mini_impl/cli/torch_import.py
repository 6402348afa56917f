"""Importing torch, and what imports it, without the garbage collector looking through it."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing_torch() -> Iterator[None]:
    """Import torch inside this, in the command that needs it.

    Torch consists of half a million objects that live as long as the process. By default the
    collector looks for garbage among them dozens of times while they are made, and again in every
    full collection, the last one at the end of the process: a quarter of the time that a process
    takes to import torch and end.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()

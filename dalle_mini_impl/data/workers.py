"""Runs a function on every example of a source, on several processes where that pays."""

import multiprocessing
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from dalle_mini_impl.data.examples import Example, Source

POOL_FROM = 2000
"""Smaller collections are processed without a pool."""
CHUNK = 64
"""Rows sent to a map_examples at a time."""

Result = TypeVar("Result")


def map_examples(
    source: Source, work: Callable[[Example], Result], workers: int = 0
) -> Iterator[Result]:
    """`work(example)` of each example in order, on several processes where that pays."""
    workers = workers or _cores()
    size = source.size()
    if workers == 1 or (size is not None and size < POOL_FROM):
        yield from map(work, source)
        return
    # Forking skips the imports; the children run Pillow and numpy only, never torch.
    method = "fork" if sys.platform.startswith("linux") else "spawn"
    context = multiprocessing.get_context(method)
    waiting: deque[Future[list[Result]]] = deque()
    with ProcessPoolExecutor(workers, context, _end_with_parent) as pool:
        for rows in _chunks(source.rows(), CHUNK):
            waiting.append(pool.submit(_work, source.reader, work, rows))
            if len(waiting) > 4 * workers:  # bounds what is held in memory
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _end_with_parent() -> None:
    """Let this worker end when the process that started it does, even if that is killed."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _work(
    reader: Callable[[Any], Example], work: Callable[[Example], Result], rows: list[Any]
) -> list[Result]:
    return [work(reader(row)) for row in rows]


def _chunks(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

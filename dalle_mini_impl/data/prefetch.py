"""Makes batches in a thread, ahead of the training step that needs them."""

import queue
import threading
from collections.abc import Callable, Generator
from typing import TypeVar

Batch = TypeVar("Batch")


def prefetch(
    batches: Callable[[int], Batch], start: int, count: int, depth: int = 2
) -> Generator[Batch, None, None]:
    """`batches(start)`, `batches(start + 1)`, … `count` of them, made ahead in a thread.

    An error in the thread is raised here; closing the iterator ends the thread.
    """
    ready: queue.Queue[tuple[Batch | None, BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: tuple[Batch | None, BaseException | None]) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for step in range(start, start + count):
                if not put((batches(step), None)):
                    return
        except BaseException as error:
            put((None, error))

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        for _ in range(count):
            batch, error = ready.get()
            if error is not None:
                raise error
            yield batch  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()

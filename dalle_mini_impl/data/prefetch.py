"""Makes batches in a thread, ahead of the training step that needs them.

The thread computes on one core. With a team of its own, GNU OpenMP would count more threads than
cores, and then every operator of the training step waits for a sleeping thread to wake: on two
cores an image tokenizer's training step took 1.5 times as long.
"""

import queue
import threading
from collections.abc import Callable, Generator
from typing import TypeVar

import torch

Batch = TypeVar("Batch")


def prefetch(
    batches: Callable[[int], Batch], start: int, count: int, depth: int = 2
) -> Generator[Batch, None, None]:
    """`batches(start)`, `batches(start + 1)`, … `count` of them, made ahead in a thread.

    An error in the thread is raised here; closing the iterator ends the thread.
    """
    ready: queue.Queue[tuple[Batch | None, BaseException | None]] = queue.Queue(depth)
    stopped, limited = threading.Event(), threading.Event()

    def put(item: tuple[Batch | None, BaseException | None]) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        # The first call lets this thread take over the number it is then told to change.
        torch.get_num_threads()
        torch.set_num_threads(1)
        limited.set()
        try:
            for step in range(start, start + count):
                if not put((batches(step), None)):
                    return
        except BaseException as error:
            put((None, error))

    thread = threading.Thread(target=work, name="batches", daemon=True)
    threads = torch.get_num_threads()
    thread.start()
    limited.wait()
    # Threads that begin later take over the last number set; this one never changed.
    torch.set_num_threads(threads)
    try:
        for _ in range(count):
            batch, error = ready.get()
            if error is not None:
                raise error
            yield batch  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()

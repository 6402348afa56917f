"""One writer at a time: a lock on each stage of a run, held by the operating system.

It ends with the process that holds it, however that ends. Readers, such as sampling, need no lock.
"""

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dalle_mini_impl.files import write_text
from dalle_mini_impl.runs.weights import RunError


@contextmanager
def writing(run: Path, stage: str) -> Iterator[None]:
    """Inside, this process alone writes the results of a stage of the run.

    RunError that names the process that is writing them now.
    """
    folder = run / "locks"
    folder.mkdir(exist_ok=True)
    note = folder / f"{stage}.json"
    lock = FileLock(folder / f"{stage}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(
            f"{run}: its {stage} stage is being trained already ({_holder(note)}); wait until it "
            "ends or stop it, or use another --run"
        ) from None
    try:
        command = " ".join(sys.argv)
        holder = {"host": socket.gethostname(), "process": os.getpid(), "command": command}
        write_text(note, json.dumps(holder))
        yield
    finally:
        lock.release()


def _holder(note: Path) -> str:
    try:
        facts = json.loads(note.read_text(encoding="utf-8"))
        return f"process {facts['process']} on {facts['host']}: {facts['command']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "by a process that has left no note"

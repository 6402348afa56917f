"""Trains one stage in a process of its own while this process trains another.

A training step of a small model is hardly faster on two cores than on one: too much of it is not
shared out. Two stages that do not need each other, each on half of the cores, use them fully.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

import torch

from dalle_mini_impl.training.context import StageContext

STAGE_PROCESS = "dalle_mini_impl.training.stage_process"
"""The module that the other process runs."""


def can_share_cores(context: StageContext) -> bool:
    """Whether this is one process on a CPU with at least two threads, started by no launcher."""
    alone = context.processes.num_processes == 1 and "MASTER_PORT" not in os.environ
    return alone and context.device.type == "cpu" and torch.get_num_threads() >= 2


@contextmanager
def trained_by_another_process(
    context: StageContext, stage: str, tensorboard: bool
) -> Iterator[None]:
    """Inside, another process trains `stage`, and each of the two has half of the threads.

    At the end waits for the other process. If the body raises, the other process saves a checkpoint
    and stops; it also does so if this process is killed. What it prints is printed here.
    Raises SystemExit with its exit status if it fails.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(threads - threads // 2)
    process = _start(context, stage, tensorboard, threads // 2)
    assert process.stdin is not None
    assert process.stdout is not None
    lines = threading.Thread(target=_print_lines, args=(process.stdout,), daemon=True)
    lines.start()
    try:
        yield
        status = process.wait()
    except BaseException:
        process.stdin.close()
        process.wait()
        raise
    finally:
        lines.join()
        torch.set_num_threads(threads)
    if status != 0:
        raise SystemExit(status)


def _start(
    context: StageContext, stage: str, tensorboard: bool, threads: int
) -> "subprocess.Popen[str]":
    """Start the process; it stops when its standard input ends."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    options = [str(context.run.path), stage, str(context.resume), str(tensorboard)]
    return subprocess.Popen(
        [sys.executable, "-m", STAGE_PROCESS, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)},
        # Ctrl-C reaches this process only, which then asks the other one to stop.
        start_new_session=True,
    )


def _print_lines(lines: TextIOWrapper) -> None:
    for line in lines:
        print(line, end="", flush=True)

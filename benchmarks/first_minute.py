"""Where the time of one short `dalle sample` goes, in fresh processes.

Only the standard library is imported above, so that a process measures its own imports.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

CAPTION = "a small red star above a large blue ring"
CHILD = "from benchmarks.first_minute import sample_once; sample_once()"
COMMAND = "from dalle_mini_impl.cli import main; raise SystemExit(main())"
PARTS = ("interpreter", "imports", "options", "load", "sampling", "ranking", "writing", "exit")


@dataclass(frozen=True)
class FirstMinuteOptions:
    """What to sample, and how often."""

    run: str = "pretrained:shapes"
    """Run folder, zip or pretrained:NAME."""
    caption: str = CAPTION
    """What the images should show."""
    repeats: int = 7
    """Processes, of which the medians are printed; one more warms up the system's file cache."""


def run(options: FirstMinuteOptions) -> None:
    """Print the medians of every part, of their sum and of the command as users start it."""
    measured, whole = [], []
    for turn in range(options.repeats + 1):
        with tempfile.TemporaryDirectory() as folder:
            arguments = ["sample", options.caption, "--run", options.run, "--out", folder]
            parts = measure_parts(arguments)
            started = time.time()
            start(COMMAND, arguments)
            if turn > 0:
                measured.append(parts)
                whole.append(time.time() - started)
    for name in PARTS:
        print(f"{name:<14}{statistics.median(parts[name] for parts in measured):6.2f} s")
    print(f"{'sum':<14}{statistics.median(sum(parts.values()) for parts in measured):6.2f} s")
    print(f"{'dalle sample':<14}{statistics.median(whole):6.2f} s")


def measure_parts(arguments: Sequence[str]) -> dict[str, float]:
    """Seconds of every part of one process."""
    started = time.time()
    spent = json.loads(start(CHILD, arguments).splitlines()[-1])
    ended = time.time()
    begun, finished = spent.pop("begun"), spent.pop("finished")
    return {"interpreter": begun - started, **spent, "exit": ended - finished}


def start(code: str, arguments: Sequence[str]) -> str:
    """Run a process to its end; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=Path(__file__).resolve().parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return done.stdout


def sample_once() -> None:
    """Sample as the command does and print the seconds of its parts as JSON."""
    begun = time.time()
    from dalle_mini_impl.cli.torch_import import importing_torch

    with importing_torch():
        from dalle_mini_impl import cli
        from dalle_mini_impl.cli import sample
        from dalle_mini_impl.pipeline import TextToImage
        from dalle_mini_impl.sampling.sampler import CodeSampler

    imported = time.time()
    spent: dict[str, float] = {}
    time_calls(sample, "sample", spent, "work")
    time_calls(sample, "open_run", spent, "open")
    time_calls(TextToImage, "from_pretrained", spent, "build")
    time_calls(TextToImage, "__call__", spent, "call")
    time_calls(CodeSampler, "__call__", spent, "sampling")
    cli.main()
    finished = time.time()
    load = spent["open"] + spent["build"]
    parts = {
        "imports": imported - begun,
        "options": finished - imported - spent["work"],
        "load": load,
        "sampling": spent["sampling"],
        "ranking": spent["call"] - spent["sampling"],
        "writing": spent["work"] - load - spent["call"],
    }
    print(json.dumps({"begun": begun, "finished": finished, **parts}))


def time_calls(owner: Any, name: str, spent: dict[str, float], part: str) -> None:
    """Let calls of a function add their seconds to a part."""
    function: Callable[..., Any] = getattr(owner, name)

    @wraps(function)
    def timed(*arguments: Any, **keywords: Any) -> Any:
        started = time.time()
        try:
            return function(*arguments, **keywords)
        finally:
            spent[part] = spent.get(part, 0.0) + time.time() - started

    setattr(owner, name, timed)

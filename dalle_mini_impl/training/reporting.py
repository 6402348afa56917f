"""Reports of training: means of the losses in metrics.jsonl, a progress bar or plain lines."""

import sys
import time
from contextlib import ExitStack
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from torch import Tensor

from dalle_mini_impl.runs.folder import RunFolder


class MeanMetrics:
    """Means of named scalars over steps, kept on their device until they are read."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, float] = {}

    def add(self, values: dict[str, Tensor], weight: float = 1.0) -> None:
        """Add `values`; the weights of a step's parts add up to 1."""
        for name, value in values.items():
            value = value.detach().float() * weight
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0.0) + weight

    def read(self) -> dict[str, float]:
        """The means so far, in one transfer from the device; then starts over."""
        if not self._sums:
            return {}
        means = torch.stack([self._sums[name] / self._counts[name] for name in self._sums])
        read = dict(zip(self._sums, means.tolist(), strict=True))
        self._sums, self._counts = {}, {}
        return read


class Reporter:
    """Progress of one stage, shown by the main process and logged to the run."""

    def __init__(self, run: RunFolder, stage: str, steps: int, active: bool) -> None:
        self.run, self.stage, self.steps, self.active = run, stage, steps, active
        self._stack = ExitStack()
        self._bar: Progress | None = None
        self._text = self._held_out = ""
        self._begun: tuple[float, float] | None = None
        self._said = (-1, False)
        self._window = time.monotonic()
        self._waited = 0.0
        self._examples = 0

    def __enter__(self) -> "Reporter":
        if self.active and sys.stdout.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[at]}"),
            )
            self._bar = self._stack.enter_context(Progress(*columns, console=Console()))
            self._task = self._bar.add_task(self.stage, total=1.0, at="")
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def say(self, message: str) -> None:
        """Print a line above the progress bar."""
        if self._bar is not None:
            self._bar.console.print(message, markup=False, highlight=False)
        elif self.active:
            print(message, flush=True)

    def step(self, step: int, progress: float, examples: int, waited: float) -> None:
        """Count a step of `examples` whose batch was waited for `waited` seconds."""
        now = time.monotonic()
        if self._begun is None:
            self._begun = (now, progress)
        self._examples += examples
        self._waited += waited
        left = self._left(now, progress)
        if self._bar is not None:
            at = f"{step:,}/{self.steps:,}{self._text}{self._held_out}{left}"
            self._bar.update(self._task, completed=progress, at=at)
        elif self.active and (int(progress * 10), bool(self._text)) > self._said:
            # The first step is told before there is a loss: nobody waits to see that it runs.
            self._said = (int(progress * 10), bool(self._text))
            text = f"{self._text}{self._held_out}{left}"
            self.say(f"{self.stage} {progress:4.0%}  step {step:,}{text}")

    def log(self, step: int, progress: float, means: dict[str, float], **values: float) -> None:
        """A line in metrics.jsonl: the means, the rate, and the share of time waiting for data."""
        now = time.monotonic()
        seconds = max(now - self._window, 1e-9)
        rate, waiting = self._examples / seconds, min(1.0, self._waited / seconds)
        self._window, self._examples, self._waited = now, 0, 0.0
        self._text = f"  loss {means['loss']:.4g}  {rate:,.3g} examples/s  waiting {waiting:.0%}"
        if self.active:
            values |= {"progress": progress, "examples_per_second": rate, "waiting": waiting}
            self.run.log(self.stage, step, **means, **values)

    def held_out(self, step: int, progress: float, losses: dict[str, float]) -> None:
        """A line in metrics.jsonl with the held-out losses, the first of them also shown."""
        name, loss = next(iter(losses.items()))
        self._held_out = f"  held-out {name} {loss:.4g}"
        if self.active:
            values = {f"held_out_{name}": value for name, value in losses.items()}
            self.run.log(self.stage, step, **values, progress=progress)

    def _left(self, now: float, progress: float) -> str:
        if self._begun is None or progress <= self._begun[1]:
            return ""
        seconds = (now - self._begun[0]) * (1 - progress) / (progress - self._begun[1])
        return f"  {seconds / 60:.0f} min left" if seconds >= 90 else f"  {seconds:.0f} s left"

"""metrics.jsonl: one JSON line per logged step, appended to and read back after interruptions."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.data.messages import import_problem


class MetricsLog:
    """A JSON Lines file of records `{"stage": ..., "step": ..., NAME: VALUE, ...}`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open_tensorboard: Callable[[], Any] | None = None
        self._tensorboard: Any = None

    def mirror_to_tensorboard(self, folder: Path) -> None:
        """Also write every logged number for TensorBoard; ConfigError if it is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                f"--tensorboard: {import_problem('tensorboard', error)}; "
                "`pip install tensorboard` or leave the option out"
            ) from error
        # Opened with the first line, so that only the process that logs makes event files.
        self._open_tensorboard = lambda: SummaryWriter(str(folder))

    def append(self, stage: str, step: int, **values: Any) -> None:
        """Add a line. Values are numbers, text, lists, arrays or tensors; non-finite is null."""
        plain = {name: _plain(value) for name, value in values.items()}
        line = json.dumps({"stage": stage, "step": step} | plain, ensure_ascii=False)
        with open(self.path, "a+b") as file:
            _drop_incomplete_line(file)
            file.write(line.encode() + b"\n")
        if self._tensorboard is None and self._open_tensorboard is not None:
            self._tensorboard = self._open_tensorboard()
        if self._tensorboard is not None:
            for name, value in plain.items():
                if isinstance(value, int | float):
                    self._tensorboard.add_scalar(f"{stage}/{name}", value, step)

    def records(self) -> list[dict[str, Any]]:
        """All lines in order, except an incomplete last one.

        If a stage's step goes back, it was resumed or started again: what it had logged from that
        step on is left out.
        """
        lines = self.path.read_bytes().split(b"\n")[:-1] if self.path.is_file() else []
        records: list[dict[str, Any]] = []
        last: dict[str, int] = {}
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                stage, step = record["stage"], record["step"]
                if not isinstance(stage, str) or type(step) is not int:
                    raise ValueError(f"stage {stage!r:.80}, step {step!r:.80}")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise ConfigError(
                    f"{self.path}, line {number}: not a metrics line ({error}); delete the line"
                ) from error
            if step < last.get(stage, step):
                records = [r for r in records if r["stage"] != stage or r["step"] < step]
            last[stage] = step
            records.append(record)
        return records


def _plain(value: Any) -> Any:
    """JSON for a number, text, array or tensor."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _drop_incomplete_line(file: BinaryIO) -> None:
    """Remove what a killed process left after the last newline."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)

"""One run on a GPU: speed, memory, and every GPU code path against its plain counterpart.

    python -m benchmarks gpu --out gpu.json              fits ten minutes on one large NVIDIA GPU
    python -m benchmarks gpu --tiny --device cpu         tries the script itself
    python -m benchmarks gpu --sections train_hour --train-hour 6

Each section runs in a process of its own with a time limit, so that a failure or a hang in one
does not stop the others. Results so far are kept.
"""

import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_checks, gpu_speed
from benchmarks.record import environment
from benchmarks.shape import Shape

ROOT = Path(__file__).resolve().parent.parent
LARGE = Shape(12, 768, 12, 2048, text=64, grid=16, text_vocabulary=8192, codes=4096)
TINY = Shape(1, 32, 2, 32, text=8, grid=4, text_vocabulary=300, codes=16)

Row = dict[str, str | float]
Record = dict[str, Any]


@dataclass(frozen=True)
class GpuOptions:
    """What to measure on a GPU."""

    sections: tuple[str, ...] = ("train", "decode", "checks")
    """Any of train, decode, checks and train_hour."""
    device: str = "cuda"
    """cuda, or cpu to try the script."""
    tiny: bool = False
    """Tiny models and few repeats."""
    compile: bool = True
    """Compile the training step and record decoding as CUDA graphs."""
    train_hour: float = 6.0
    """Section train_hour: minutes of training, in all stages together."""
    prompts: int = 10
    """Section train_hour: prompts for each task of the suite."""
    run: Path = Path("runs/gpu-hour")
    """Section train_hour: the run folder; one that exists is continued."""
    out: Path | None = None
    """JSON file to write."""
    in_process: bool = False
    """Run the sections in this process, without time limits."""

    @property
    def shape(self) -> Shape:
        """The transformer to measure: about 100 M parameters."""
        return TINY if self.tiny else LARGE


@dataclass(frozen=True)
class Section:
    """One part of the run; `measure` yields rows of one table."""

    title: str
    seconds: float
    measure: Callable[[GpuOptions], Iterator[Row]]


def train_rows(options: GpuOptions) -> Iterator[Row]:
    """Training steps at several batch sizes."""
    return gpu_speed.training(options.shape, options.device, options.compile, options.tiny)


def decode_rows(options: GpuOptions) -> Iterator[Row]:
    """Decoding at batch 1 and 64."""
    return gpu_speed.decoding(options.shape, options.device, options.compile, options.tiny)


def check_rows(options: GpuOptions) -> Iterator[Row]:
    """Fast paths against plain ones."""
    return gpu_checks.run(options.shape, options.device, options.compile)


def hour_rows(options: GpuOptions) -> Iterator[Row]:
    """A short training of the demo's larger configuration."""
    return gpu_speed.train_hour(options.run, options.train_hour, options.prompts, options.tiny)


SECTIONS = {
    "train": Section("Training step", 200, train_rows),
    "decode": Section("Decoding", 180, decode_rows),
    "checks": Section("GPU code paths against their plain counterparts", 150, check_rows),
    "train_hour": Section("Training configs/shapes-hour.yaml", 580, hour_rows),
}


def run(options: GpuOptions) -> Record:
    """Run the sections, print their tables and write the record."""
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        raise SystemExit(f"--sections {' '.join(unknown)}: choose from {', '.join(SECTIONS)}")
    record: Record = {"environment": None, "sections": {}}
    for name in options.sections:
        if options.in_process:
            record["environment"] = environment(torch.device(options.device), sys.argv[1:])
            for found in measure_section(name, options):
                record["sections"][name] = found
                write(options.out, record)
        else:
            child = run_in_child(section_command(name, options), SECTIONS[name].seconds)
            record["environment"] = child["environment"] or record["environment"]
            found = child["sections"].get(name, {"rows": [], "error": ""})
            found["error"] = found["error"] or child["error"]
            record["sections"][name] = found
            write(options.out, record)
            print(markdown(SECTIONS[name].title, found), flush=True)
    if options.out is not None and not options.in_process:
        print(options.out)
    return record


def measure_section(name: str, options: GpuOptions) -> Iterator[Record]:
    """The section's result after each row; an exception becomes its error."""
    found: Record = {"rows": [], "seconds": 0.0, "error": ""}
    started = time.monotonic()
    try:
        for row in SECTIONS[name].measure(options):
            found["rows"].append(row)
            found["seconds"] = time.monotonic() - started
            yield found
    except Exception as error:
        traceback.print_exc()
        found["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
    found["seconds"] = time.monotonic() - started
    yield found


def section_command(name: str, options: GpuOptions) -> list[str]:
    """The command that runs one section; `--out` is added by `run_in_child`."""
    command = [sys.executable, "-m", "benchmarks", "gpu", "--in-process", "--sections", name]
    command += ["--device", options.device, "--prompts", str(options.prompts)]
    command += ["--train-hour", str(options.train_hour), "--run", str(options.run.resolve())]
    command += ["--tiny"] if options.tiny else []
    return command if options.compile else [*command, "--no-compile"]


def run_in_child(command: list[str], seconds: float) -> Record:
    """What the command wrote within its time, with an `error` where it did not finish."""
    with tempfile.TemporaryDirectory() as folder:
        out, error = Path(folder) / "section.json", ""
        try:
            done = subprocess.run([*command, "--out", str(out)], timeout=seconds, cwd=ROOT)
            error = f"exit status {done.returncode}" if done.returncode else ""
        except subprocess.TimeoutExpired:
            error = f"stopped after {seconds:g} s"
        empty: Record = {"environment": None, "sections": {}}
        record = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else empty
    return record | {"error": error}


def write(path: Path | None, record: Record) -> None:
    """The record as JSON, if a file is asked for."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(record, indent=1, ensure_ascii=False)
        path.write_text(text, encoding="utf-8")


def markdown(title: str, found: Record) -> str:
    """One section as a Markdown table."""
    header = list(dict.fromkeys(key for row in found["rows"] for key in row))
    lines = [f"### {title}", ""]
    if header:
        lines += [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for row in found["rows"]:
        cells = [row.get(key, "") for key in header]
        texts = [f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells]
        lines.append(f"| {' | '.join(texts)} |")
    if found["error"]:
        lines += ["", f"Failed: {found['error']}"]
    return "\n".join([*lines, ""])

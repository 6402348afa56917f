"""What each fast kernel brings in a whole training step or a whole decode, in turns.

    python -m benchmarks.kernels [--only REGEX] [--turns 9]

Two processes each build the same model; one of them takes the plain function of one kernel. They
are asked in turns, so that a machine that drifts slows both. Compiled steps go to a folder of each
process's own.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks import ours
from benchmarks.shape import Shape
from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.data.batches import CodeBatch
from dalle_mini_impl.training.objectives.dalle import DalleObjective

PREDICATES = {
    "attention": "fused_backward_is_slow",
    "decode_attention": "can_fuse_with_its_surroundings",
    "linear": "is_one_compiled_row",
    "rms_norm": "autograd_is_slow",
    "cross_entropy": "logits_are_many",
    "random_masks": "compiled_on_cpu",
}
LARGE = {"codes": 16384, "grid": 16, "depth": 2}


@dataclass(frozen=True)
class Case:
    """A kernel, and the whole step or decode in which it is measured."""

    kernel: str
    task: str
    """train, or decode-N for N images."""
    precision: str
    compile: str
    shape: dict[str, int]

    def __str__(self) -> str:
        compiled = "compiled" if self.compile == "on" else "eager"
        large = f", {self.shape}" if self.shape else ""
        return f"{self.kernel} | {self.task}, {self.precision}, {compiled}{large}"


CASES = (
    Case("attention", "train", "bf16", "off", {}),
    *(Case("attention", "train", p, "on", {}) for p in ("bf16", "fp32")),
    *(Case("decode_attention", f"decode-{n}", "fp32", "on", {}) for n in (1, 16)),
    *(Case("linear", "decode-1", p, "on", {}) for p in ("fp32", "bf16")),
    *(Case("rms_norm", "train", p, "off", {}) for p in ("fp32", "bf16")),
    Case("cross_entropy", "train", "fp32", "off", LARGE),
    Case("random_masks", "train", "fp32", "on", {}),
    Case("allocator", "train", "bf16", "on", {}),
)


@dataclass(frozen=True)
class Arguments:
    """Measure every kernel whose name or case matches."""

    only: str = ""
    turns: int = 9
    threads: int = os.cpu_count() or 1


def main() -> None:
    """Print a line for each case."""
    arguments = tyro.cli(Arguments)
    print("kernel | case | fast | plain | ratio")
    for case in CASES:
        if re.search(arguments.only, str(case)):
            with tempfile.TemporaryDirectory() as folder:
                pair = [start(case, plain, arguments.threads, folder) for plain in (False, True)]
                turns = [[ask(worker) for worker in pair] for _ in range(arguments.turns + 2)]
                for worker in pair:
                    worker.kill()
            # The first two turns warm up and may compile.
            fast, plain = (statistics.median(times) for times in zip(*turns[2:], strict=True))
            print(f"{case} | {fast:.3f} s | {plain:.3f} s | {fast / plain:.2f}", flush=True)


def start(case: Case, plain: bool, threads: int, folder: str) -> "subprocess.Popen[str]":
    """A process that takes one step for every line it reads."""
    settings = json.dumps([vars(case), plain, threads])
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.kernels", "--worker", settings],
        env=os.environ | {"XDG_CACHE_HOME": str(Path(folder, str(plain)))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ask(worker: "subprocess.Popen[str]") -> float:
    """Seconds of one step."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    print(file=worker.stdin, flush=True)
    return float(worker.stdout.readline())


def work(case: Case, plain: bool, threads: int) -> None:
    """Take a step for every line of standard input and print its seconds."""
    torch.set_num_threads(threads)
    if plain:
        take_plain(case.kernel)
    step = build(case)
    for _ in sys.stdin:
        started = time.perf_counter()
        step()
        print(time.perf_counter() - started, flush=True)


def take_plain(kernel: str) -> None:
    """Let one kernel of this process take its plain function."""
    if kernel == "allocator":
        vars(ours)["keep_freed_memory"] = lambda: None
        return
    module = import_module(f"dalle_mini_impl.kernels.{kernel}")
    setattr(module, PREDICATES[kernel], lambda *_: False)


def build(case: Case) -> Any:
    """The step or decode that a case measures."""
    shape = Shape(**case.shape)
    model, device = ours.build_dalle(shape, torch.device("cpu")), torch.device("cpu")
    if case.task == "train":
        rows = 16 if case.shape else 32
        codes = torch.randint(shape.codes, (rows, shape.image))
        captions = torch.randint(1, shape.text_vocabulary, (rows, shape.text))
        config = TrainingConfig(optimizer="adamw", precision=case.precision, compile=case.compile)  # type: ignore[arg-type]
        if case.kernel == "random_masks":
            model.config = model.config.model_copy(update={"dropout": 0.1})
        objective = DalleObjective(model, model.config)
        return ours.trainer(objective, config, CodeBatch(codes, captions), device)
    model.eval().requires_grad_(False)
    ways = ours.decoders(model, case.compile == "on", case.precision)  # type: ignore[arg-type]
    decode = ways["compiled" if case.compile == "on" else "eager"]
    caption = torch.randint(1, shape.text_vocabulary, (1, shape.text))
    return lambda: decode(caption, int(case.task.removeprefix("decode-")), 1.0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        fields, plain, threads = json.loads(sys.argv[2])
        work(Case(**fields), plain, threads)
    else:
        main()

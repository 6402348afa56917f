"""torch.compile for the training step, where it pays and where it works."""

import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo.utils import counters

from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.training.learner import Learner
from dalle_mini_impl.training.reporting import Means

COMPILE_FROM = 180.0
"""Seconds of training from which `compile: auto` compiles: it takes 10 to 40."""


def compile_if_it_pays(
    learner: Learner,
    config: TrainingConfig,
    batch: Callable[[], Any],
    step: int,
    progress: float,
    budget: float,
    clock: Callable[[], float],
    say: Callable[[str], None],
) -> None:
    """Compile the learner's losses, tried on `batch` at `step`; eager where that fails.

    budget: seconds that are left of a time limit, infinite without one. clock: seconds, the same
    on every process. Weights, buffers and optimizers are left as they were.
    """
    left = config.steps - step
    if config.compile == "off" or left < 1 or (config.compile == "auto" and budget < COMPILE_FROM):
        return
    if why := getattr(learner.objective, "runs_eagerly", ""):
        if config.compile == "on":
            say(f"compile is on, but {why}: running eager")
        return
    if not (shutil.which("g++") or shutil.which("clang++")):
        if config.compile == "on":
            say("compile is on, but no C++ compiler (g++) was found: running eager")
        return
    trial, started = batch(), clock()
    buffers = [b for part in learner.parts.values() for b in part.buffers()]
    kept = [b.clone() for b in buffers]
    try:
        if config.compile == "auto":
            learner.gradients(trial, step, progress)
            if min(budget, left * (clock() - started)) < COMPILE_FROM:
                return
        what = _compile(learner, lambda share: learner.gradients(trial, step, progress + share))
        say(f"compiled the {what} in {clock() - started:.0f} s")
    except Exception as error:
        # Compilers fail in many ways; a fault of the losses themselves comes back in eager mode.
        _undo(learner)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        say(f"compiling failed, running eager: {reason}")
    finally:
        learner.means = Means()
        for buffer, value in zip(buffers, kept, strict=True):
            buffer.copy_(value)


def _compile(learner: Learner, attempt: Callable[[float], Any]) -> str:
    """Compile the losses or, where they would be compiled again at each step, the models.

    attempt: a step's gradients, a given share of the run ahead.
    """
    if not getattr(learner.objective, "compile_models", False):
        for phase in learner.phases:
            phase.compiled = torch.compile(phase.losses)
        attempt(0.0)
        graphs = counters["stats"]["unique_graphs"]
        # Schedules in Python make progress a constant of the code, outdated a step later.
        attempt(0.25 / learner.config.steps)
        if counters["stats"]["unique_graphs"] == graphs:
            return "losses"
        _undo(learner)
    for part in learner.parts.values():
        part.compile()
    attempt(0.0)
    return "models"


def _undo(learner: Learner) -> None:
    for phase in learner.phases:
        phase.compiled = None
    for part in learner.parts.values():
        part._compiled_call_impl = None  # what Module.compile sets

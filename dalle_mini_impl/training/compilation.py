"""torch.compile for the training step, where it works and saves time."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch._dynamo.utils import counters

from dalle_mini_impl.training.learner import Learner
from dalle_mini_impl.training.reporting import MeanMetrics

COMPILE_FROM = 180.0
"""Seconds of training from which `compile: auto` compiles; compiling takes 10 to 40."""


@dataclass(frozen=True)
class Trial:
    """A training step on which compilation is tried; it changes nothing that is trained."""

    batch: Callable[[], Any]
    step: int
    progress: float
    time_left: float = float("inf")
    """Seconds that are left of a time limit."""


def compile_if_it_pays(
    learner: Learner, trial: Trial, clock: Callable[[], float], say: Callable[[str], None]
) -> None:
    """Compile the learner's losses; they stay eager where that does not pay or fails.

    clock: seconds, the same on every process.
    """
    config = learner.config
    steps_left, time_left = config.steps - trial.step, trial.time_left
    unknown = learner.device.type not in ("cpu", "cuda")
    if config.compile == "off" or steps_left < 1:
        return
    if config.compile == "auto" and (unknown or time_left < COMPILE_FROM):
        return
    if why := getattr(learner.objective, "runs_eagerly", ""):
        if config.compile == "on":
            say(f"compile is on, but {why}: running eager")
        return
    if not (shutil.which("g++") or shutil.which("clang++")):
        if config.compile == "on":
            say("compile is on, but no C++ compiler (g++) was found: running eager")
        return
    batch, started = trial.batch(), clock()
    buffers = [b for network in learner.networks.values() for b in network.buffers()]
    kept = [b.clone() for b in buffers]

    def attempt(ahead: float) -> None:
        learner.compute_gradients(batch, trial.step, trial.progress + ahead)

    try:
        if config.compile == "auto":
            attempt(0.0)
            if min(time_left, steps_left * (clock() - started)) < COMPILE_FROM:
                return
        say("compiling the training step, which takes 10 to 40 s")
        what = _compile(learner, attempt)
        say(f"compiled the {what} in {clock() - started:.0f} s")
    except Exception as error:
        # Compilers fail in many ways. An error in the losses themselves is raised again eagerly.
        _undo(learner)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        say(f"compiling failed, running eager: {reason}")
    finally:
        learner.means = MeanMetrics()
        for buffer, value in zip(buffers, kept, strict=True):
            buffer.copy_(value)


def _compile(learner: Learner, attempt: Callable[[float], None]) -> str:
    """Compile the losses or, where they would be compiled again at each step, the models.

    attempt: computes a step's gradients, as if at a given share of the run further on.
    """
    if not getattr(learner.objective, "compile_models", False):
        for module in learner.loss_modules:
            module.compiled = torch.compile(module.losses)
        attempt(0.0)
        graphs = counters["stats"]["unique_graphs"]
        # A schedule computed in Python becomes a constant of the compiled code: one step later it
        # is compiled again.
        attempt(0.25 / learner.config.steps)
        if counters["stats"]["unique_graphs"] == graphs:
            return "losses"
        _undo(learner)
    for network in learner.networks.values():
        network.compile()
    attempt(0.0)
    return "models"


def _undo(learner: Learner) -> None:
    for module in learner.loss_modules:
        module.compiled = None
    for network in learner.networks.values():
        network._compiled_call_impl = None  # what Module.compile sets

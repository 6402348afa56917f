"""How long a training step takes on this machine, found out by taking a few."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from accelerate import Accelerator

from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.training.learner import Learner
from dalle_mini_impl.training.objectives.objective import Objective
from dalle_mini_impl.training.processes import cpu_only

STEPS = 12
"""Enough for a median; further ones are not taken even where there is time."""


def step_seconds(
    objective: Objective,
    training: TrainingConfig,
    batch: Callable[[torch.device], Any],
    seconds: float,
) -> float:
    """Seconds of an eager step, the median of those taken within about `seconds` (at least two).

    The first step, which allocates and warms up, is not counted.
    """
    accelerator = Accelerator(cpu=cpu_only(), mixed_precision="no")
    learner = Learner(objective, training, accelerator)
    examples = batch(accelerator.device)
    taken: list[float] = []
    begun = time.perf_counter()
    while len(taken) < 2 or (len(taken) < STEPS and time.perf_counter() - begun < seconds):
        started = time.perf_counter()
        learner.gradients(examples, len(taken), 1.0)
        learner.update(0.5)
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return median(taken[1:])

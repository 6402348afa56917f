"""Measures how long a training step takes on this machine."""

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

MAX_STEPS = 12
"""Enough for a median."""


def step_seconds(
    objective: Objective,
    training: TrainingConfig,
    batch: Callable[[torch.device], Any],
    seconds: float,
) -> float:
    """Seconds of an eager step: the median of at least two, taken within about `seconds`.

    The first step, which allocates memory, is not counted.
    """
    accelerator = Accelerator(cpu=cpu_only(), mixed_precision="no")
    learner = Learner(objective, training, accelerator)
    examples = batch(accelerator.device)
    taken: list[float] = []
    begun = time.perf_counter()
    while len(taken) < 2 or (len(taken) < MAX_STEPS and time.perf_counter() - begun < seconds):
        started = time.perf_counter()
        learner.compute_gradients(examples, len(taken), 1.0)
        learner.update(0.5)
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return median(taken[1:])

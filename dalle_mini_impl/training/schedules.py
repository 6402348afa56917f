"""Schedules as closed forms of progress, the share of the run that is done (0 to 1).

Nothing is annealed from its previous value, so a resumed run needs only its progress.
"""

import math

from dalle_mini_impl.config import TrainingConfig


def cosine(progress: float, start: float, end: float, value_from: float, value_to: float) -> float:
    """Half a cosine wave from `value_from` (progress <= start) to `value_to` (progress >= end)."""
    if progress <= start:
        return value_from
    if progress >= end:
        return value_to
    share = (progress - start) / (end - start)
    return value_to + (value_from - value_to) * 0.5 * (1 + math.cos(math.pi * share))


def learning_rate(config: TrainingConfig, progress: float) -> float:
    """Factor in [0, 1] on every peak learning rate at `progress` in [0, 1]."""
    rise = progress / config.warmup if progress < config.warmup else 1.0
    rest = config.final_learning_rate
    if config.schedule == "cosine":
        return rise * cosine(progress, config.warmup, 1.0, 1.0, rest)
    if config.schedule == "stable-decay" and config.decay > 0:
        left = min(1.0, max(0.0, 1 - progress) / config.decay)
        return rise * (rest + (1 - rest) * left)
    return rise

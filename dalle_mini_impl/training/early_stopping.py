"""Which weights are best on held-out images, and how a run ends when no better ones come.

Everything here follows from numbers that a checkpoint holds, so a resumed run decides as an
uninterrupted one.
"""

import math
from dataclasses import dataclass

from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.training.schedules import learning_rate

DECAY_SHARE = 0.1
"""Length of the decay after an early stop, as a share of the steps done."""


@dataclass(frozen=True)
class Best:
    """The step with the lowest held-out loss so far."""

    step: int
    progress: float
    loss: float


def is_better(loss: float, best: Best | None) -> bool:
    """Whether `loss` is a number below the best one."""
    return math.isfinite(loss) and (best is None or loss < best.loss)


def should_stop(best: Best | None, progress: float, patience: float | None) -> bool:
    """Whether the share `patience` of the run has passed without a better loss; 0 never stops."""
    return bool(patience) and best is not None and progress - best.progress >= (patience or 0)


@dataclass(frozen=True)
class Decay:
    """The end of a run that stopped early.

    It returns to its best weights, and the learning rate falls from its value there to the last one
    of the schedule, so that the training done so far gets its decay too.
    """

    start: int
    """Step at which the run stopped."""
    steps: int
    stopped: float
    """Progress at which the run stopped."""
    resumed: float
    """Progress of the step whose weights it returned to."""

    @classmethod
    def after(cls, best: Best, step: int, progress: float) -> "Decay":
        """The decay of a run that stops at `step`: within what is left of its budget."""
        share = min(DECAY_SHARE, (1 - progress) / progress)
        return cls(step, round(step * share), progress, best.progress)

    def progress(self, step: int, budget: float) -> float:
        """Share of the run that is done, from `stopped` to 1.

        budget: share of the steps or minutes that is used up.
        """
        done = (step - self.start) / self.steps if self.steps else 1.0
        return min(1.0, max(budget, self.stopped + (1 - self.stopped) * done))

    def schedule(self, progress: float) -> float:
        """Where the objective's schedules are: they go on from `resumed`."""
        return self.resumed + (1 - self.resumed) * self.share(progress)

    def share(self, progress: float) -> float:
        """Share of the decay that is done."""
        return (progress - self.stopped) / (1 - self.stopped)


def current_learning_rate(config: TrainingConfig, progress: float, decay: Decay | None) -> float:
    """Factor on every peak learning rate; in a decay a line between the schedule's values."""
    if decay is None:
        return learning_rate(config, progress)
    first, last = learning_rate(config, decay.resumed), learning_rate(config, 1.0)
    return first + (last - first) * decay.share(progress)

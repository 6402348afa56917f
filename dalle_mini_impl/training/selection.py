"""Measures a stage's held-out losses, keeps the best weights, and stops it when none improve."""

import math
from dataclasses import replace
from typing import Any

import torch

from dalle_mini_impl.training.checkpoints import TrainState
from dalle_mini_impl.training.early_stopping import Best, Decay, is_better, should_stop
from dalle_mini_impl.training.held_out import HeldOut
from dalle_mini_impl.training.learner import Learner
from dalle_mini_impl.training.objectives.objective import comparable_from, held_out_passes
from dalle_mini_impl.training.reporting import Reporter

EARLY = (1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4)
"""Shares of the first interval where it is measured too: few images are soon known by heart."""


class Selection:
    """The held-out measurements of one stage; without `held_out` it does nothing."""

    def __init__(self, learner: Learner, held_out: HeldOut | None, reporter: Reporter) -> None:
        self.learner, self.held_out, self.reporter = learner, held_out, reporter
        self.config = learner.config
        self.best: dict[str, Any] = {}
        """The learner's state at the best step; empty before there is one."""
        self.interval, self.early = 0, frozenset[int]()
        if held_out is not None:
            step_images = self.config.batch_size * learner.accelerator.num_processes
            self.interval = held_out.interval(held_out_passes(learner.objective), step_images)
            self.early = frozenset(math.ceil(share * self.interval) for share in EARLY)

    def is_due(self, step: int, finished: bool) -> bool:
        """Whether to measure after `step`: at intervals, more often in the first, at the end."""
        if self.held_out is None:
            return False
        return finished or step % self.interval == 0 or step in self.early

    def measure(self, state: TrainState, progress: float) -> TrainState:
        """Measure the averaged weights; returns the state with what follows from it."""
        assert self.held_out is not None
        losses = self.learner.evaluate(self.held_out.batches())
        name, loss = next(iter(losses.items()))
        self.reporter.held_out(state.step, progress, losses)
        if progress < comparable_from(self.learner.objective):
            return state
        if is_better(loss, state.best):
            self._keep()
            return replace(state, best=Best(state.step, progress, loss))
        if progress >= 1:
            self._report_end(state, name, loss)
        elif state.decay is None and should_stop(state.best, progress, self.config.early_stop):
            return self._stop(state, progress, name, loss)
        return state

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs."""
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; checkpoints of earlier versions have nothing."""
        self.best = _copied(state.get("best", {}))

    def restore_best_average(self) -> None:
        """Give the average that is saved the best weights, where the configuration wants them."""
        if self.config.keep == "best" and self.best:
            self.learner.ema.load_state_dict(self.best["ema"])

    def _keep(self) -> None:
        if self.config.early_stop:
            self.best = _copied(self.learner.state_dict())
        elif self.config.keep == "best":
            self.best = _copied({"ema": self.learner.ema.state_dict()})

    def _stop(self, state: TrainState, progress: float, name: str, loss: float) -> TrainState:
        """Return to the best weights, to let the learning rate decay from there."""
        assert state.best is not None
        decay = Decay.after(state.best, state.step, progress)
        self._say(
            f"stopping early at step {state.step:,}: held-out {name} is {loss:.4g} and was best "
            f"at step {state.best.step:,} ({state.best.loss:.4g}); {decay.steps:,} more steps "
            "from there, with a falling learning rate"
        )
        # A copy, as optimizers go on with the tensors that they are given.
        self.learner.load_state_dict(_copied(self.best))
        return replace(state, decay=decay)

    def _report_end(self, state: TrainState, name: str, loss: float) -> None:
        if state.best is not None and self.config.keep == "best":
            self._say(
                f"keeping the weights of step {state.best.step:,}: held-out {name} was "
                f"{state.best.loss:.4g} there and is {loss:.4g} at the end"
            )

    def _say(self, message: str) -> None:
        self.reporter.say(f"{self.reporter.stage}: {message}")


def _copied(state: Any) -> Any:
    """A copy of nested dicts, lists and tensors, the tensors on the CPU."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {name: _copied(value) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_copied(value) for value in state)
    return state

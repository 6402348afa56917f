"""The training loop of every stage, on accelerate; it knows no model.

Everything random is derived from (seed, step, rank), and batches are functions of the step: an
interrupted and resumed run ends in the same weights as an uninterrupted one, bit for bit on CPU
where both compile or neither does. A time budget (`minutes`) ties the schedules to the clock, which
no resumption can repeat.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.data.messages import counted
from dalle_mini_impl.data.prefetch import prefetch
from dalle_mini_impl.kernels.allocator import keep_freed_memory
from dalle_mini_impl.shipped.commands import command
from dalle_mini_impl.training.checkpoints import TrainState, clear_checkpoints, load_checkpoint
from dalle_mini_impl.training.compilation import Trial, compile_if_it_pays
from dalle_mini_impl.training.early_stopping import current_learning_rate
from dalle_mini_impl.training.held_out import HeldOut
from dalle_mini_impl.training.interruption import StopRequests
from dalle_mini_impl.training.learner import Learner
from dalle_mini_impl.training.nonfinite import FirstBadStep, NonFiniteLoss, nonfinite_loss
from dalle_mini_impl.training.objectives.objective import Objective, batch_length, to_device
from dalle_mini_impl.training.processes import (
    SINGLE_PROCESS_HINT,
    Agreed,
    cpu_only,
    highest,
    launched_alone_on_cpu,
)
from dalle_mini_impl.training.reporting import Reporter
from dalle_mini_impl.training.selection import Selection
from dalle_mini_impl.training.stage_files import StageFiles

Preview = Callable[[nn.Module, int], None]


def train(
    objective: Objective,
    batches: Callable[[int], Any],
    config: TrainingConfig,
    files: StageFiles,
    resume: bool = True,
    preview: Preview | None = None,
    held_out: HeldOut | None = None,
) -> None:
    """Train `objective.model` on `batches(step)` and save the EMA of its weights in `files`.

    batches: this process's batch at a step: a dataclass of tensors with `config.batch_size` rows.
    preview: called `config.previews` times with the EMA model, in eval mode, and the step.
    held_out: what the EMA is measured on, to keep the best weights and stop early as configured.
    The stage starts again where its checkpoints were made from something else than `files` says.
    Raises NonFiniteLoss where the loss or its gradient is not finite. After SIGINT or SIGTERM it
    saves a checkpoint and raises SystemExit with the usual code, 128 + signal. Freed memory stays
    with the process from here on (`keep_freed_memory`).
    """
    keep_freed_memory()
    loop = Loop(objective, batches, config, files, preview, held_out)
    with StopRequests() as requests, loop.reporter:
        loop.begin(resume)
        loop.run_steps(requests)
    loop.selection.restore_best_average()
    if loop.accelerator.is_main_process:
        files.save_weights(loop.learner.ema.module.state_dict())
    loop.accelerator.wait_for_everyone()


class Loop:
    """One stage from its first step or a checkpoint to its end; holds its state and clock."""

    def __init__(
        self,
        objective: Objective,
        batches: Callable[[int], Any],
        config: TrainingConfig,
        files: StageFiles,
        preview: Preview | None = None,
        held_out: HeldOut | None = None,
    ) -> None:
        self.batches, self.config, self.files, self.preview = batches, config, files, preview
        # precision.py decides on autocast, so accelerate's own mixed precision is off.
        self.accelerator = Accelerator(cpu=cpu_only(), mixed_precision="no")
        self.device = self.accelerator.device
        self.learner = Learner(objective, config, self.accelerator)
        main = self.accelerator.is_main_process
        self.reporter = Reporter(files.run, files.stage, config.steps, main)
        self.selection = Selection(self.learner, held_out, self.reporter)
        self.state = TrainState(processes=self.accelerator.num_processes)
        self.started, self.elapsed_before = time.monotonic(), 0.0
        self.first_bad_step: FirstBadStep | None = None
        if self.device.type == "cuda" and self.state.processes == 1:
            self.first_bad_step = FirstBadStep(self.device)

    def begin(self, resume: bool) -> None:
        """Continue from the newest checkpoint or start again, then compile if that pays."""
        if self.state.processes == 1 and launched_alone_on_cpu():
            self._say(SINGLE_PROCESS_HINT)
        self._load_checkpoint(resume)
        minutes = self.config.minutes
        time_left = float("inf") if minutes is None else 60 * minutes - self.elapsed_before
        step = self.state.step
        trial = Trial(
            lambda: to_device(self.batches(step), self.device), step, self.progress(), time_left
        )
        compile_if_it_pays(self.learner, trial, lambda: self._agree().elapsed, self._say)
        elapsed = self._agree().elapsed
        overhead = self.state.overhead + elapsed - self.elapsed_before
        self.state = replace(self.state, elapsed=elapsed, overhead=overhead)

    def _load_checkpoint(self, resume: bool) -> None:
        outdated = resume and self.files.checkpoints_are_outdated()
        self.accelerator.wait_for_everyone()
        if outdated:
            changed = ", ".join(self.files.made_from)
            self._say(f"inputs ({changed}) changed since the checkpoint; starting again")
        if (outdated or not resume) and self.accelerator.is_main_process:
            clear_checkpoints(self.files.checkpoints)
        self.accelerator.wait_for_everyone()
        found = load_checkpoint(self.files.checkpoints, self._restore, self.device)
        if found is None:
            return
        self._say(f"resuming at step {found.step:,}")
        if found.processes != self.state.processes:
            self._say(
                f"begun on {counted(found.processes, 'process', 'processes')}, continued on "
                f"{self.state.processes}: the batches will not be those of an uninterrupted run"
            )
        self.state = replace(found, processes=self.state.processes)
        self.elapsed_before = found.elapsed

    def _restore(self, tensors: dict[str, Any]) -> None:
        self.learner.load_state_dict(tensors)
        self.selection.load_state_dict(tensors)

    def run_steps(self, requests: StopRequests) -> None:
        """All steps to the end of the schedule, or to a signal."""
        saved, previews = self.state.elapsed, self._previews_due()
        batches = prefetch(self.batches, self.state.step, self.config.steps - self.state.step)
        try:
            while (progress := self.progress()) < 1:
                waiting = time.monotonic()
                batch = to_device(next(batches), self.device)
                waited = time.monotonic() - waiting
                stop = self._step(batch, progress, requests)
                self._report(progress, batch_length(batch) * self.state.processes, waited)
                previews = self._preview(previews)
                self._measure()
                due = self.state.elapsed - saved >= 60 * self.config.checkpoint_minutes
                finished = self.progress() >= 1
                if due or stop or finished:
                    self._save()
                    saved = self.state.elapsed
                if stop and not finished:
                    self._say(
                        f"saved at step {self.state.step:,} of {self.config.steps:,}; to "
                        f"continue: {command('train')} --run {self.files.run.path} --stage "
                        f"{self.files.stage}"
                    )
                    raise SystemExit(128 + stop)
        finally:
            batches.close()

    def progress(self) -> float:
        return self.state.progress(self.config)

    def _step(self, batch: Any, progress: float, requests: StopRequests) -> int:
        """One optimizer step; the signal that asks to stop, or 0."""
        step, decay = self.state.step, self.state.decay
        scheduled = progress if decay is None else decay.schedule(progress)
        bad = ~torch.isfinite(self.learner.compute_gradients(batch, step, scheduled))
        found_inf, failed = None, False
        if self.first_bad_step is not None:
            found_inf = self.first_bad_step.note(bad, step, scheduled)
        else:
            failed = bool(bad)
        agreed = self._agree(requests.signal or 0, failed)
        if agreed.failed:
            raise self._nonfinite_loss(batch, step, scheduled)
        self.learner.update(progress, found_inf, decay)
        self.state = replace(self.state, step=step + 1, elapsed=agreed.elapsed)
        return agreed.stop

    def _agree(self, stop: int = 0, failed: bool = False) -> Agreed:
        elapsed = self.elapsed_before + time.monotonic() - self.started
        return highest(Agreed(stop, elapsed, failed), self.state.processes, self.device)

    def _report(self, progress: float, examples: int, waited: float) -> None:
        step, done = self.state.step, self.progress()
        if step % self.config.log_every == 0 or done >= 1:
            self._raise_if_nonfinite()
            factor = current_learning_rate(self.config, progress, self.state.decay)
            self.reporter.log(step, done, self.learner.means.read(), learning_rate=factor)
        self.reporter.step(step, done, examples, waited)

    def _measure(self) -> None:
        """Held-out losses where they are due; after a stop the learner is back at its best."""
        progress = self.progress()
        if self.selection.is_due(self.state.step, progress >= 1):
            self._raise_if_nonfinite()
            self.state = self.selection.measure(self.state, progress)

    def _previews_due(self) -> int:
        return int(self.progress() * self.config.previews)

    def _preview(self, shown: int) -> int:
        """Show the EMA model if that is due; how many previews were due so far."""
        due = self._previews_due()
        if due > shown and self.preview is not None and self.accelerator.is_main_process:
            with torch.no_grad():
                self.preview(self.learner.ema.module, self.state.step)
        return due

    def _save(self) -> None:
        self._raise_if_nonfinite()
        if self.accelerator.is_main_process:
            tensors = self.learner.state_dict() | self.selection.state_dict()
            self.files.save_checkpoint(self.state, tensors)
        self.accelerator.wait_for_everyone()

    def _raise_if_nonfinite(self) -> None:
        """Raise if a bad step was noted on the GPU."""
        noted = self.first_bad_step.read() if self.first_bad_step is not None else None
        if noted is not None:
            step, progress = noted
            batch = to_device(self.batches(step), self.device)
            raise self._nonfinite_loss(batch, step, progress)

    def _nonfinite_loss(self, batch: Any, step: int, progress: float) -> NonFiniteLoss:
        tensor = self.learner.diagnose(batch, step, progress)
        checkpoint, precision = self.files.newest_checkpoint(), self.learner.precision
        return nonfinite_loss(self.files.stage, step, tensor, checkpoint, precision)

    def _say(self, message: str) -> None:
        self.reporter.say(f"{self.files.stage}: {message}")

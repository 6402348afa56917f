"""The training loop of every stage, on accelerate; it knows no model.

Everything random is derived from (seed, step, rank), and batches are functions of the step: an
interrupted and resumed run ends in the same weights as an uninterrupted one, bit for bit on CPU
where both compile or neither does. A time budget (`minutes`) ties the schedules to the clock, which
no resumption can repeat.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import nn

from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.data.prefetch import prefetch
from dalle_mini_impl.files import atomic_write
from dalle_mini_impl.kernels.allocator import keep_freed_memory
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.training.checkpoints import (
    TrainState,
    clear_checkpoints,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from dalle_mini_impl.training.compilation import compile_if_it_pays
from dalle_mini_impl.training.interruption import StopRequests
from dalle_mini_impl.training.learner import Learner
from dalle_mini_impl.training.nonfinite import NonFiniteLoss
from dalle_mini_impl.training.objectives.objective import Objective, batch_length, to_device
from dalle_mini_impl.training.reporting import Reporter
from dalle_mini_impl.training.schedules import learning_rate

MADE_FROM = "made_from.json"


def train(
    objective: Objective,
    batches: Callable[[int], Any],
    config: TrainingConfig,
    run: RunFolder,
    stage: str,
    resume: bool = True,
    weights: str | None = None,
    preview: Callable[[nn.Module, int], None] | None = None,
    made_from: Mapping[str, str] | None = None,
) -> None:
    """Train `objective.model` on `batches(step)` and save its averaged weights in the run.

    batches: this process's batch at a step: a dataclass of tensors with `config.batch_size` rows.
    weights: the name the weights are saved under, unless it is the stage's.
    preview: called `config.previews` times with the averaged model, in eval mode, and the step.
    made_from: hashes of what the stage is trained on, noted in its weights and checkpoints; it
    begins anew where the checkpoints note others.
    Raises NonFiniteLoss where the loss or its gradient is not finite. After SIGINT or SIGTERM it
    saves a checkpoint and raises SystemExit with the usual code, 128 + signal. Freed memory stays
    with the process from here on (`keep_freed_memory`).
    """
    keep_freed_memory()
    loop = Loop(objective, batches, config, run, stage, preview, made_from)
    with StopRequests() as requests, loop.reporter:
        loop.begin(resume)
        loop.run_steps(requests)
    if loop.accelerator.is_main_process:
        state = loop.learner.average.module.state_dict()
        run.save_weights(weights or stage, state, **loop.made_from)
    loop.accelerator.wait_for_everyone()


def cpu_only() -> bool:
    """Whether accelerate must be told to stay on the CPU: several processes and no GPU."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return asked or (several and not torch.cuda.is_available())


class Loop:
    """The course of one stage: its place, clock, checkpoints and reports."""

    def __init__(
        self,
        objective: Objective,
        batches: Callable[[int], Any],
        config: TrainingConfig,
        run: RunFolder,
        stage: str,
        preview: Callable[[nn.Module, int], None] | None = None,
        made_from: Mapping[str, str] | None = None,
    ) -> None:
        self.batches, self.config, self.preview = batches, config, preview
        self.run, self.stage, self.folder = run, stage, run.checkpoints(stage)
        self.made_from = dict(made_from or {})
        # Precision has a policy of its own, so accelerate's stays out of the way.
        self.accelerator = Accelerator(cpu=cpu_only(), mixed_precision="no")
        self.device = self.accelerator.device
        self.learner = Learner(objective, config, self.accelerator)
        self.reporter = Reporter(run, stage, config.steps, self.accelerator.is_main_process)
        self.place = TrainState(processes=self.accelerator.num_processes)
        self.started, self.before = time.monotonic(), 0.0
        # On a GPU a bad step is noted there, and found when something is read anyway.
        self.lazy = self.device.type == "cuda" and self.place.processes == 1
        self.noted_step = torch.full((), -1.0, device=self.device)
        self.noted_progress = torch.zeros((), device=self.device)

    def begin(self, resume: bool) -> None:
        """Continue from the newest checkpoint or start anew, then compile if that pays."""
        if self.place.processes == 1 and cpu_only() and "MASTER_PORT" in os.environ:
            self._say(
                "accelerate launch starts a single process on the CPU, whatever --num_processes "
                "says, unless it has MPI; `torchrun --nproc_per_node N -- SCRIPT …` starts N"
            )
        outdated = resume and self._outdated()
        self.accelerator.wait_for_everyone()
        if outdated:
            self._say(f"what it was begun with ({', '.join(self.made_from)}) changed; begun anew")
        if (outdated or not resume) and self.accelerator.is_main_process:
            clear_checkpoints(self.folder)
        self.accelerator.wait_for_everyone()
        found = load_checkpoint(self.folder, self.learner.load_state_dict, self.device)
        if found is not None:
            self._say(f"resuming at step {found.step:,}")
            if found.processes != self.place.processes:
                self._say(
                    f"begun on {found.processes} processes, continued on {self.place.processes}: "
                    "the batches will not be those of an unbroken run"
                )
            self.place = replace(found, processes=self.place.processes)
            self.before = found.elapsed
        seconds = float("inf") if self.config.minutes is None else 60 * self.config.minutes
        compile_if_it_pays(
            self.learner,
            self.config,
            lambda: to_device(self.batches(self.place.step), self.device),
            self.place.step,
            self.progress(),
            seconds - self.before,
            lambda: self._agree(0)[1],
            self._say,
        )
        elapsed = self._agree(0)[1]
        overhead = self.place.overhead + elapsed - self.before
        self.place = replace(self.place, elapsed=elapsed, overhead=overhead)

    def run_steps(self, requests: StopRequests) -> None:
        """All steps to the end of the schedule, or to a signal."""
        saved, previews = self.place.elapsed, self._previews_due()
        batches = prefetch(self.batches, self.place.step, self.config.steps - self.place.step)
        try:
            while (progress := self.progress()) < 1:
                waiting = time.monotonic()
                batch = to_device(next(batches), self.device)
                waited = time.monotonic() - waiting
                stop = self._step(batch, progress, requests)
                self._report(progress, batch_length(batch) * self.place.processes, waited)
                if self._previews_due() > previews:
                    previews = self._previews_due()
                    self._preview()
                due = self.place.elapsed - saved >= 60 * self.config.checkpoint_minutes
                finished = self.progress() >= 1
                if due or stop or finished:
                    self._save()
                    saved = self.place.elapsed
                if stop and not finished:
                    self._say(
                        f"saved at step {self.place.step:,} of {self.config.steps:,}; to "
                        f"continue: python train.py --run {self.run.path} --stage {self.stage}"
                    )
                    raise SystemExit(128 + stop)
        finally:
            batches.close()

    def progress(self) -> float:
        """Share of the run that is done, in [0, 1]: by steps or by time, whichever is further."""
        by_steps = self.place.step / self.config.steps
        if self.config.minutes is None:
            return min(1.0, by_steps)
        # Compiling is paid from the budget, but the schedules must not jump over it.
        budget = max(60 * self.config.minutes - self.place.overhead, 1e-9)
        return min(1.0, max(by_steps, (self.place.elapsed - self.place.overhead) / budget))

    def _step(self, batch: Any, progress: float, requests: StopRequests) -> int:
        """One optimizer step; the signal that asks to stop, or 0."""
        step = self.place.step
        bad = ~torch.isfinite(self.learner.gradients(batch, step, progress))
        hold = None
        if self.lazy:
            new = bad & (self.noted_step < 0)
            self.noted_step = torch.where(new, float(step), self.noted_step)
            self.noted_progress = torch.where(new, progress, self.noted_progress)
            hold = (self.noted_step >= 0).float()
        failed = not self.lazy and bool(bad)
        stop, elapsed, failed = self._agree(requests.signal or 0, failed)
        if failed:
            raise self._diagnosis(batch, step, progress)
        self.learner.update(progress, hold)
        self.place = replace(self.place, step=step + 1, elapsed=elapsed)
        return stop

    def _agree(self, stop: int, failed: bool = False) -> tuple[int, float, bool]:
        """The stop signal, the elapsed seconds and a failure: the same on every process."""
        elapsed = self.before + time.monotonic() - self.started
        if self.place.processes == 1:
            return stop, elapsed, failed
        facts = torch.tensor([stop, elapsed, failed], dtype=torch.float64, device=self.device)
        dist.all_reduce(facts, dist.ReduceOp.MAX)
        return int(facts[0]), float(facts[1]), bool(facts[2])

    def _report(self, progress: float, examples: int, waited: float) -> None:
        step, done = self.place.step, self.progress()
        if step % self.config.log_every == 0 or done >= 1:
            self._check_noted()
            factor = learning_rate(self.config, progress)
            self.reporter.log(step, done, self.learner.means.read(), learning_rate=factor)
        self.reporter.step(step, done, examples, waited)

    def _previews_due(self) -> int:
        return int(self.progress() * self.config.previews)

    def _preview(self) -> None:
        if self.preview is not None and self.accelerator.is_main_process:
            with torch.no_grad():
                self.preview(self.learner.average.module, self.place.step)

    def _save(self) -> None:
        self._check_noted()
        if self.accelerator.is_main_process:
            with atomic_write(self.folder / MADE_FROM) as temporary:
                temporary.write_text(json.dumps(self.made_from), encoding="utf-8")
            save_checkpoint(self.folder, self.place, self.learner.state_dict())
        self.accelerator.wait_for_everyone()

    def _outdated(self) -> bool:
        """Whether there are checkpoints, and they were made from something else."""
        note = self.folder / MADE_FROM
        if not list_checkpoints(self.folder) or not note.is_file():
            return False
        return json.loads(note.read_text(encoding="utf-8")) != self.made_from

    def _check_noted(self) -> None:
        """Raise for a bad step noted on the GPU; weights have been held as they were before it."""
        if self.lazy and (step := int(self.noted_step)) >= 0:
            batch = to_device(self.batches(step), self.device)
            raise self._diagnosis(batch, step, float(self.noted_progress))

    def _diagnosis(self, batch: Any, step: int, progress: float) -> NonFiniteLoss:
        tensor = self.learner.diagnose(batch, step, progress)
        kept = list_checkpoints(self.folder)
        where = f"the last good checkpoint is {kept[0]}" if kept else "there is no checkpoint yet"
        advice = "lower learning_rate and muon_learning_rate or max_grad_norm"
        if self.learner.precision == "bf16":
            advice += ", or set precision to fp32"
        return NonFiniteLoss(
            f"{self.stage}: the loss or its gradient at step {step} is not finite. First bad "
            f"tensor: {tensor}. Nothing was saved over it; {where}. To go on, {advice}."
        )

    def _say(self, message: str) -> None:
        self.reporter.say(f"{self.stage}: {message}")

"""A plan: the time, memory and disk that an experiment will take on this machine."""

import os
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch.utils.benchmark import Timer

from dalle_mini_impl.experiment import Experiment
from dalle_mini_impl.experiment.models import new_image_tokenizer
from dalle_mini_impl.planning.counting import Cost, count_encoding, count_stage
from dalle_mini_impl.planning.disk import DataCost, count_data
from dalle_mini_impl.planning.dry_run import dry_run, vocabulary_size
from dalle_mini_impl.precision import best_device, choose_precision
from dalle_mini_impl.runs.stages import MODEL_STAGES, SIDE_BY_SIDE, StageName
from dalle_mini_impl.training.checkpoints import KEPT
from dalle_mini_impl.training.code_stage import encodings_of
from dalle_mini_impl.training.processes import cpu_only
from dalle_mini_impl.training.timing import step_seconds

SECONDS = 1.0
"""About how long steps of each model are measured."""
LONGEST_STEP = 5.0
"""A step of one example that is expected to take more seconds than this is not measured."""
MATRIX_SIDE = 1024
"""Side of the square matrices whose product shows how fast the machine is."""
ATTAINED_SHARE = 0.2
"""Share of that speed that a step is assumed to reach before any is measured."""
PROGRAM_BYTES = 600 * 2**20
"""Memory of Python and the libraries before any model: 0.4 to 0.6 GB on Linux."""


@dataclass(frozen=True)
class StagePlan:
    """One trained stage."""

    stage: StageName
    cost: Cost
    precision: str
    batch_size: int
    steps: int
    """Steps that will be taken: those configured, or those that fit into the stage's minutes."""
    limited_by: str
    """steps or minutes: which of them ends the stage."""
    step_seconds: float | None
    """Seconds of a step, not compiled; none where nothing was measured."""
    measured: bool
    """Whether steps were timed; else the time is estimated from a matrix product."""

    @property
    def images(self) -> int:
        """Images seen in all, repeated ones counted again."""
        return self.steps * self.batch_size

    @property
    def flops(self) -> float:
        """FLOPs of the stage: steps × (batch × those of an example + those of the update)."""
        example, update = self.cost.flops_per_sample, self.cost.flops_per_update
        return self.steps * (self.batch_size * example + update)

    @property
    def seconds(self) -> float | None:
        """Expected duration."""
        return None if self.step_seconds is None else self.steps * self.step_seconds


@dataclass(frozen=True)
class Plan:
    """Everything that `dalle plan` says."""

    device: str
    memory: int
    """Bytes that the device has for a run."""
    program: int
    """Bytes in use before any model."""
    disk: int
    """Bytes that are free where runs are written."""
    data: DataCost
    encoding_flops: float | None
    """FLOPs of encoding the training images; none where their number is unknown."""
    stages: tuple[StagePlan, ...]

    @property
    def run_bytes(self) -> int:
        """Bytes of the weights and checkpoints that a finished run holds.

        A checkpoint has the state of its own step and that of the best one.
        """
        return sum(s.cost.ema + KEPT * 2 * s.cost.state for s in self.stages)

    @property
    def side_by_side(self) -> int | None:
        """Bytes at most of the transformer and CLIP trained at once; none on a GPU or one core."""
        if self.device != "cpu" or torch.get_num_threads() < 2:
            return None
        return sum(self.program + s.cost.peak for s in self.stages if s.stage in SIDE_BY_SIDE)

    def fits(self, stage: StagePlan) -> bool:
        """Whether the stage's peak fits into the memory."""
        return self.program + stage.cost.peak <= self.memory


def make_plan(experiment: Experiment, measure: bool = True, memory: int | None = None) -> Plan:
    """Plan an experiment. ConfigError where its vocabulary or precision is impossible here.

    measure: take a few real steps of each model, a few seconds in all. memory: bytes to plan for,
    in place of what this machine has.
    """
    device = default_device()
    room = memory if memory is not None else available_memory(device)
    words = vocabulary_size(experiment)
    variants = encodings_of(experiment)
    with torch.device("meta"):
        codes = new_image_tokenizer(experiment).code_count
    collection = count_data(experiment, codes, variants)
    encoding = None
    if collection.images is not None:
        encoding = collection.images["train"] * variants * count_encoding(experiment)
    program = PROGRAM_BYTES if device.type == "cpu" else 0
    speed = {}
    stages = []
    for stage in MODEL_STAGES:
        cost = count_stage(experiment, stage, words, device)
        seconds, measured = None, False
        if measure:
            precision = choose_precision(getattr(experiment, stage).training.precision, device)
            if precision not in speed:
                speed[precision] = matrix_speed(device, precision)
            seconds, measured = time_stage(
                experiment, stage, words, cost, speed[precision],
                program + cost.peak <= available_memory(device),
            )  # fmt: skip
        stages.append(plan_stage(experiment, stage, cost, seconds, measured, device))
    free = psutil.disk_usage(".").free
    return Plan(device.type, room, program, free, collection, encoding, tuple(stages))


def plan_stage(
    experiment: Experiment,
    stage: StageName,
    cost: Cost,
    seconds: float | None,
    measured: bool,
    device: torch.device,
) -> StagePlan:
    """The stage with as many steps as are configured, or as fit into its minutes."""
    training = getattr(experiment, stage).training
    steps, limited_by = training.steps, "steps"
    if seconds is not None and training.minutes is not None:
        within = max(1, int(60 * training.minutes / seconds))
        if within < steps:
            steps, limited_by = within, "minutes"
    precision = choose_precision(training.precision, device)
    return StagePlan(
        stage, cost, precision, training.batch_size, steps, limited_by, seconds, measured
    )


def time_stage(
    experiment: Experiment, stage: StageName, words: int, cost: Cost, speed: float, fits: bool
) -> tuple[float, bool]:
    """Seconds of a step, and whether they were measured.

    Where a whole batch would take too long, fewer examples are timed and the time is scaled.
    """
    training = getattr(experiment, stage).training
    attained = ATTAINED_SHARE * speed
    whole = training.batch_size * cost.flops_per_sample + cost.flops_per_update
    if not fits or cost.flops_per_sample + cost.flops_per_update > LONGEST_STEP * attained:
        return whole / attained, False
    rows = int((SECONDS * attained - cost.flops_per_update) / cost.flops_per_sample)
    rows = max(1, min(training.batch_size, rows))
    trial = dry_run(experiment, stage, words)
    parts = max(1, rows * training.grad_accum_steps // training.batch_size)
    settings = training.model_copy(update={"batch_size": rows, "grad_accum_steps": parts})
    seconds = step_seconds(
        trial.objective, settings, lambda device: trial.batch(rows, device), SECONDS
    )
    tried = rows * cost.flops_per_sample + cost.flops_per_update
    return seconds * whole / tried, True


def matrix_speed(device: torch.device, precision: str) -> float:
    """FLOP/s of a large product of matrices."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    matrix = torch.ones(MATRIX_SIDE, MATRIX_SIDE, dtype=kind, device=device)
    timer = Timer("a @ a", globals={"a": matrix}, num_threads=torch.get_num_threads())
    # The fastest of several: other programs can only slow it down.
    return 2 * MATRIX_SIDE**3 / min(timer.timeit(1).mean for _ in range(8))


def default_device() -> torch.device:
    """Where training will run: the GPU if there is one, unless accelerate is told otherwise."""
    return torch.device("cpu") if cpu_only() else best_device()


def available_memory(device: torch.device) -> int:
    """Bytes that a run can have: free GPU memory, or what this machine or container has left."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    own = psutil.Process(os.getpid()).memory_info().rss
    left = psutil.virtual_memory().available
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and used.is_file() and (most := limit.read_text().strip()).isdigit():
        left = min(left, int(most) - int(used.read_text()))
    return left + own

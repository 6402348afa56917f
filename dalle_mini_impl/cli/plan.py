"""plan CONFIG [--json] [--memory GIB] [--no-measure] [--SECTION.FIELD VALUE]

Estimates what training CONFIG needs on this machine: parameters, FLOPs, memory, disk and time, and
what to reduce if it does not fit. Runs a few real steps of each model on random data; writes
nothing.

  CONFIG         an experiment's YAML, the name of a shipped one, such as shapes, or the
                 config.yaml of a run
  --json         print one JSON document instead of tables
  --memory GIB   plan for this much memory instead of what is free here
  --no-measure   count only, without running any step

Every field of the experiment is an option, as for train: --transformer.depth 8.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from pydantic import Field
from rich.console import Console
from rich.table import Table

from dalle_mini_impl.cli.experiment_options import parse
from dalle_mini_impl.cli.output import OutputOptions, output
from dalle_mini_impl.cli.run_options import optional
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.experiment import Experiment
from dalle_mini_impl.runs.stages import SIDE_BY_SIDE
from dalle_mini_impl.shipped.folders import config_names

if TYPE_CHECKING:
    from dalle_mini_impl.planning.advice import Advice
    from dalle_mini_impl.planning.plan import Plan, StagePlan

GIB = 2**30
PIPED = 120
"""Width of the tables where the output is not a terminal."""


@dataclass(frozen=True)
class Command(OutputOptions):
    """Estimate what training needs on this machine; every field of the experiment is an option."""

    config: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG")]
    """The experiment's YAML, or the name of a shipped one."""
    experiment: Annotated[Experiment, tyro.conf.arg(name="")]
    """Fields of the experiment."""
    memory: Annotated[
        Annotated[float, Field(gt=0, le=10**6)] | None, optional("what is free here", "GIB")
    ] = None
    """GiB of memory to plan for."""
    measure: bool = True
    """Run a few real steps of each model to estimate the time; takes a few seconds."""


def main(argv: Sequence[str]) -> None:
    """Parse the options and print the plan."""
    first = argv[0] if argv and not argv[0].startswith("-") else None
    config = first or next((a for a in argv if a.endswith((".yaml", ".yml"))), None)
    if config is None:
        if {"-h", "--help"} & set(argv):
            print(__doc__)
            return
        shipped = ", ".join(config_names())
        raise ConfigError(f"CONFIG is missing: name a shipped configuration ({shipped}) or a YAML")
    command = parse(lambda experiment: Command(config, experiment), "dalle plan", argv, config)

    from dalle_mini_impl.planning.advice import advise
    from dalle_mini_impl.planning.plan import make_plan

    memory = None if command.memory is None else round(command.memory * GIB)
    with output(command) as result:
        plan = make_plan(command.experiment, command.measure, memory)
        tight = [stage for stage in plan.stages if not plan.fits(stage)]
        advice = {stage.stage: advise(command.experiment, plan, stage) for stage in tight}
        result(as_json(plan, advice), lambda: show_plan(command.experiment, plan, advice))


def as_json(plan: "Plan", advice: "dict[Any, list[Advice]]") -> dict[str, Any]:
    """The plan with its derived figures, in bytes, FLOPs and seconds."""
    stages = [
        asdict(stage)
        | {
            "images": stage.images,
            "flops": stage.flops,
            "seconds": stage.seconds,
            "fits": plan.fits(stage),
            "advice": [asdict(change) for change in advice.get(stage.stage, [])],
        }
        for stage in plan.stages
    ]
    derived = {"run_bytes": plan.run_bytes, "side_by_side": plan.side_by_side}
    return asdict(plan) | derived | {"stages": stages}


def show_plan(experiment: Experiment, plan: "Plan", advice: "dict[Any, list[Advice]]") -> None:
    """The plan as tables and sentences."""
    console = Console(width=None if sys.stdout.isatty() else PIPED)
    table = Table(title="Training", title_justify="left")
    names = "stage", "parameters", "FLOPs per example", "steps", "images", "FLOPs", "ms/step"
    for name in (*names, "time"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage in plan.stages:
        table.add_row(
            stage.stage,
            f"{stage.cost.parameters:,}",
            _scaled(stage.cost.flops_per_sample),
            f"{stage.steps:,}",
            f"{stage.images:,}",
            _scaled(stage.flops),
            "-" if stage.step_seconds is None else f"{1000 * stage.step_seconds:,.0f}",
            "-" if stage.seconds is None else _duration(stage.seconds),
        )
    console.print(table)
    for stage in plan.stages:
        console.print(_explained(experiment, stage), highlight=False, soft_wrap=True)

    table = Table(title=f"Memory ({plan.device})", title_justify="left")
    for name in ("stage", "weights", "ema", "gradients", "optimizer", "activations", "peak"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage in plan.stages:
        cost = stage.cost
        parts = (cost.weights, cost.ema, cost.gradients, cost.optimizer, cost.activations)
        table.add_row(stage.stage, *map(_bytes, parts), _bytes(plan.program + cost.peak))
    console.print(table)
    if plan.program:
        console.print(f"The peak includes {_bytes(plan.program)} of Python and its libraries.")
    if plan.side_by_side is not None:
        fits = plan.side_by_side <= plan.memory
        console.print(
            f"{' and '.join(SIDE_BY_SIDE)} are trained at the same time, each on half of the "
            f"cores, and take {_bytes(plan.side_by_side)} together"
            f"{'' if fits else ': too much, train with --no-side-by-side'}.",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"There are {_bytes(plan.memory)}.", highlight=False)
    for stage in plan.stages:
        _show_advice(console, stage, plan.fits(stage), advice)
    for line in _disk(plan):
        console.print(line, highlight=False, soft_wrap=True)


def _explained(experiment: Experiment, stage: "StagePlan") -> str:
    training = getattr(experiment, stage.stage).training
    if stage.step_seconds is None:
        limit = f" at most, unless {training.minutes:g} minutes end it" if training.minutes else ""
        return f"{stage.stage}: {stage.steps:,} steps of {stage.batch_size}{limit}."
    how = "" if stage.measured else " (estimated from a matrix product: a step takes too long)"
    speed = f"{stage.batch_size / stage.step_seconds:,.1f} images/s in {stage.precision}"
    end = f"all of its {stage.steps:,} steps"
    if stage.limited_by == "minutes":
        end = f"{stage.steps:,} of {training.steps:,} steps fit into its {training.minutes:g} min"
    compiled = "" if training.compile == "off" else "; compiled steps, where it pays, are faster"
    return f"{stage.stage}: {speed}{how}; {end}{compiled}."


def _show_advice(
    console: Console, stage: "StagePlan", fits: bool, advice: "dict[Any, list[Advice]]"
) -> None:
    if fits:
        return
    console.print(f"{stage.stage} does not fit. These changes save memory:", highlight=False)
    for change in advice.get(stage.stage, []):
        name = change.setting.replace("_", "-")
        enough = "enough by itself" if change.fits else "not enough alone"
        console.print(
            f"  --{name} {change.value}: saves {_bytes(change.saves)}, {enough}", highlight=False
        )


def _disk(plan: "Plan") -> list[str]:
    data = plan.data
    lines = []
    if data.images is None:
        each = f"{data.bytes_per_image:,} bytes for each image"
        lines.append(f"Disk: the images could not be counted ({data.unknown}); {each}.")
    else:
        counts = ", ".join(f"{count:,} {split}" for split, count in data.images.items() if count)
        store, codes = _bytes(data.store or 0), _bytes(data.codes or 0)
        lines.append(f"Disk: images ({counts}) {store}, codes {codes}.")
        lines.append(f"Encoding the images takes {_scaled(plan.encoding_flops or 0)} FLOPs.")
    lines.append(
        f"Weights and checkpoints: {_bytes(plan.run_bytes)}. Free here: {_bytes(plan.disk)}."
    )
    needed = plan.run_bytes + (data.store or 0) + (data.codes or 0)
    if needed > plan.disk:
        halved = _bytes((data.store or 0) * 3 // 4)
        lines.append(
            f"That does not fit on the disk: --data.limit keeps fewer images, and half of "
            f"data.image_size saves {halved}."
        )
    return lines


def _scaled(number: float) -> str:
    for size, name in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if number >= size:
            return f"{number / size:,.2f} {name}"
    return f"{number:,.0f}"


def _bytes(number: int) -> str:
    for size, name in ((GIB, "GiB"), (2**20, "MiB")):
        if number >= size:
            return f"{number / size:,.1f} {name}"
    return f"{number / 1024:,.1f} KiB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"

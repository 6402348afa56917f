"""train CONFIG [--run DIR] [--stage STAGE] [--no-resume] [--tensorboard] [--SECTION.FIELD VALUE]

Trains what the run does not have yet: captions, image_tokenizer, codes, transformer, clip.

  CONFIG           an experiment's YAML, such as configs/shapes.yaml; may be left out with --run
  --run DIR        the run folder; runs/NAME for configs/NAME.yaml unless given
  --stage STAGE    this stage only
  --no-resume      begin the stage anew in place of continuing from its checkpoint; every stage,
                   finished or not, where no --stage is given
  --tensorboard    also log for TensorBoard

`train CONFIG --help` lists every field of that experiment with its value: each is an option, as
in --transformer.depth 8.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from pydantic import ValidationError

from dalle_mini_impl.cli.launch_processes import launch_missing_processes
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.experiment import (
    SHIPPED,
    Experiment,
    explain,
    field_paths,
    load_experiment,
)
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.stages import STAGES, StageName

if TYPE_CHECKING:
    from dalle_mini_impl.training.context import StageContext

# Fields that change how fast or how visibly a stage trains, not what it learns.
HARMLESS = {"workers", "max_unreadable", "checkpoint_minutes", "previews", "log_every", "compile"}
# A VQGAN's discriminator is judged, and may back off, at each preview.
BACK_OFF = "image_tokenizer.training.previews"
EXTENDABLE = {"steps", "minutes"}


@dataclass(frozen=True)
class Command:
    """Train what the run does not have yet; every field of the experiment is an option."""

    config: tyro.conf.Positional[str | None]
    """The experiment's YAML; may be left out where --run names a run to continue."""
    experiment: Annotated[Experiment, tyro.conf.arg(name="")]
    """Fields of the experiment."""
    run: str | None = None
    """The run folder; runs/NAME for configs/NAME.yaml unless given."""
    stage: StageName | None = None
    """This stage only; unless given, all that the run does not have yet."""
    resume: bool = True
    """Continue a stage from its checkpoint, or begin it (without --stage: all of them) anew."""
    tensorboard: bool = False
    """Also log for TensorBoard, under the run's tensorboard/."""


def main(argv: Sequence[str]) -> None:
    """Train as the arguments say."""
    launch_missing_processes()
    config, run_path = _config_and_run(argv)
    argv = config_first(argv, config)
    if config is None and run_path is None:
        if {"-h", "--help"} & set(argv):
            print(__doc__)
            return
        shipped = ", ".join(f"configs/{path.name}" for path in sorted(SHIPPED.glob("*.yaml")))
        raise ConfigError(f"CONFIG is missing: name a YAML ({shipped}) or a run to continue, --run")
    command = _parse(argv, config or str(Path(run_path or "") / "config.yaml"), config, run_path)
    run = open_run(
        Path(command.run or f"runs/{Path(config or '').stem}"),
        command.experiment,
        anew=None if command.resume else (command.stage or "all"),
    )
    from dalle_mini_impl.training.stages import run_stages

    run_stages(run, command.stage, command.resume, command.tensorboard, show_results)


def show_results(context: "StageContext", complete: bool) -> None:
    """Write the run's report; once the run is complete, with a gallery of samples."""
    from dalle_mini_impl.evaluation.report.gallery import sample_gallery
    from dalle_mini_impl.evaluation.report.run_report import write_report
    from dalle_mini_impl.pipeline import TextToImage

    if complete:
        sample_gallery(context.run, TextToImage.from_pretrained(context.run, context.device))
    context.say(f"report: {write_report(context.run)}")


def open_run(path: Path, experiment: Experiment, anew: str | None = None) -> RunFolder:
    """The run at `path`, with `experiment` as its configuration.

    ConfigError if an existing run has results that a changed field went into. anew: the stage
    ("all": every stage) whose results are about to be replaced, so that its fields may change;
    what was made with other values of them is removed, as the new configuration cannot load it.
    """
    if not (path / "config.yaml").is_file():
        return RunFolder.create(path, experiment)
    run = RunFolder.open(path)
    changed = sorted(_changes(run.experiment.model_dump(), experiment.model_dump()))
    vqgan = experiment.image_tokenizer.type == "vqgan"
    outdated = []
    for stage, facts in STAGES.items():
        state = _state(run, stage)
        accepted = HARMLESS | (EXTENDABLE if state == "begun" else set())
        binding = [
            change
            for name, change in changed
            if name.split(".")[0] in facts.inputs
            and (name.split(".")[-1] not in accepted or (vqgan and name == BACK_OFF))
        ]
        if state and binding and anew in (stage, "all"):
            outdated.append(stage)
        elif state and binding:
            more = f" and {len(binding) - 5} more" if len(binding) > 5 else ""
            raise ConfigError(
                f"{path}: its {stage} stage is {state} with other settings: "
                f"{'; '.join(binding[:5])}{more}. Use another --run for the new settings, or "
                f"continue with the old ones: train --run {path}"
            )
    if not changed and anew != "all":
        return run
    for stage in outdated:
        run.discard(stage)
    return RunFolder.create(path, experiment, None if anew == "all" else run.fingerprint)


def _state(run: RunFolder, stage: str) -> str | None:
    """finished, begun (there is a checkpoint), or none."""
    weights = STAGES[stage].weights
    if run.has_captions() if stage == "captions" else weights and run.has_weights(weights):
        return "finished"
    return "begun" if any((run.path / "checkpoints" / stage).glob("*")) else None


def _changes(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Dotted name and description of each field that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            below = f"{name}.{key}" if name else key
            yield from _changes(old.get(key), new.get(key), below)
    elif old != new:
        yield name, f"{name} was {old!r}, now {new!r}"


def _config_and_run(argv: Sequence[str]) -> tuple[str | None, str | None]:
    """CONFIG and --run, needed before the other options can be known."""
    config = argv[0] if argv and not argv[0].startswith("-") else None
    run = None
    for index, argument in enumerate(argv):
        if argument == "--run" and index + 1 < len(argv):
            run = argv[index + 1]
        elif argument.startswith("--run="):
            run = argument.removeprefix("--run=")
        elif config is None and argument.endswith((".yaml", ".yml")):
            config = argument
    return config, run


def config_first(argv: Sequence[str], config: str | None) -> list[str]:
    """The arguments with CONFIG before all options, whose value it would else be taken for."""
    return [*([config] if config else []), *(argument for argument in argv if argument != config)]


def _parse(argv: Sequence[str], source: str, config: str | None, run: str | None) -> Command:
    """The command line on top of the YAML at `source`."""
    if not config:
        RunFolder.open(run or "")  # says what is wrong with the folder
    experiment = before_options(argv, source)
    try:
        return tyro.cli(
            Command,
            prog="dalle train",
            args=list(argv),
            default=Command(config=config, experiment=experiment, run=run),
            config=(tyro.conf.AvoidSubcommands,),
        )
    except ValidationError as error:
        raise explain(error, "command line") from error


def before_options(argv: Sequence[str], source: str) -> Experiment:
    """The YAML at `source` as tyro lays the options over it, of the tokenizer's type asked for.

    tyro offers the fields of its default's type alone, and builds the sections one by one, so that
    it cannot say where in the whole a value is wrong. ConfigError for options that are wrong.
    """
    experiment = load_experiment(source)
    asked = overrides_of(argv, experiment).get("image_tokenizer.type")
    if asked is not None:
        experiment = load_experiment(source, {"image_tokenizer.type": asked})
    if overrides := overrides_of(argv, experiment):
        load_experiment(source, overrides)
    return experiment


def overrides_of(argv: Sequence[str], experiment: Experiment) -> dict[str, Any]:
    """Options given for fields of the experiment, as text by dotted name."""
    fields = set(field_paths(Experiment))
    values: dict[str, list[str]] = {}
    name = ""
    for argument in argv:
        if argument.startswith("--"):
            option, *value = argument.removeprefix("--").split("=", 1)
            name = option.replace("-", "_")
            values[name] = value
        elif name:
            values[name].append(argument)
    overrides: dict[str, Any] = {}
    for name in values.keys() & fields:
        if not values[name]:
            continue
        current: Any = experiment
        for part in name.split("."):
            current = getattr(current, part, None)
        several = isinstance(current, tuple) or len(values[name]) > 1
        overrides[name] = values[name] if several else values[name][0]
        if overrides[name] == "None":
            overrides[name] = None
    return overrides

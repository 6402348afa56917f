"""Which settings of an existing run may change, and which results a change removes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.experiment import Experiment
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.lock import writing
from dalle_mini_impl.runs.stages import STAGES

# Fields that do not change what a stage learns.
HARMLESS = {"workers", "max_unreadable", "checkpoint_minutes", "previews", "log_every", "compile"}
# At each preview the weight of a discriminator may be lowered.
BACK_OFF = "image_tokenizer.training.previews"
# Fields that may change while a stage is being trained.
EXTENDABLE = {"steps", "minutes"}


def create_or_continue(path: Path, experiment: Experiment, restart: str | None = None) -> RunFolder:
    """The run at `path`, with `experiment` as its configuration.

    ConfigError if an existing run has results that depend on a changed field, RunError if another
    command is writing what a change removes. restart: the stage ("all": every stage) that is about
    to be trained from the beginning, so that its fields may change; results that no longer fit the
    configuration are removed.
    """
    if not (path / "config.yaml").is_file():
        return RunFolder.create(path, experiment)
    run = RunFolder.open(path)
    changed = sorted(_changes(run.experiment.model_dump(), experiment.model_dump()))
    adversarial = experiment.image_tokenizer.objective.adversarial.weight > 0
    outdated = []
    for stage, facts in STAGES.items():
        state = _state(run, stage)
        accepted = HARMLESS | (EXTENDABLE if state == "started" else set())
        binding = [
            change
            for name, change in changed
            if name.split(".")[0] in facts.inputs
            and (name.split(".")[-1] not in accepted or (adversarial and name == BACK_OFF))
        ]
        if state and binding and restart in (stage, "all"):
            outdated.append(stage)
        elif state and binding:
            more = f" and {len(binding) - 5} more" if len(binding) > 5 else ""
            raise ConfigError(
                f"{path}: its {stage} stage is {state} with other settings: "
                f"{'; '.join(binding[:5])}{more}. Use another --run for the new settings, or "
                f"continue with the old ones: train --run {path}"
            )
    if not changed and restart != "all":
        return run
    for stage in outdated:
        with writing(path, stage):
            run.discard(stage)
    return RunFolder.create(path, experiment, None if restart == "all" else run.fingerprint)


def _state(run: RunFolder, stage: str) -> str | None:
    """finished, started (there is a checkpoint), or none."""
    weights = STAGES[stage].weights
    if run.has_captions() if stage == "captions" else weights and run.has_weights(weights):
        return "finished"
    return "started" if any((run.path / "checkpoints" / stage).glob("*")) else None


def _changes(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Dotted name and description of each field that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            below = f"{name}.{key}" if name else key
            yield from _changes(old.get(key), new.get(key), below)
    elif old != new:
        yield name, f"{name} was {old!r}, now {new!r}"

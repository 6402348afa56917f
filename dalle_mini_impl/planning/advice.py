"""Settings to change where a stage does not fit into memory, and what each saves."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from pydantic import ValidationError

from dalle_mini_impl.experiment import Experiment
from dalle_mini_impl.planning.counting import count_stage
from dalle_mini_impl.planning.dry_run import vocabulary_size
from dalle_mini_impl.planning.plan import Plan, StagePlan, default_device
from dalle_mini_impl.runs.stages import StageName

HALVED: dict[StageName, tuple[str, ...]] = {
    "image_tokenizer": ("image_tokenizer.autoencoder.width", "data.image_size"),
    "transformer": ("transformer.depth", "transformer.ffn_width", "data.image_size"),
    "clip": ("clip.image_width", "clip.text_width", "data.image_size"),
}
"""What may be halved to make a stage smaller."""


@dataclass(frozen=True)
class Advice:
    """A change of one setting."""

    setting: str
    """Dotted name, as in the YAML."""
    value: Any
    saves: int
    """Bytes less at the stage's peak."""
    fits: bool
    """Whether this change alone is enough."""


def advise(experiment: Experiment, plan: Plan, stage: StagePlan) -> list[Advice]:
    """Changes that make the stage smaller, those that are enough alone first."""
    words = vocabulary_size(experiment)
    device: torch.device = default_device()
    found = []
    for setting, value in _changes(experiment, stage.stage):
        try:
            changed = _with(experiment, setting, value)
        except ValidationError:
            continue  # impossible together with the rest
        peak = count_stage(changed, stage.stage, words, device).peak
        saves = stage.cost.peak - peak
        if saves > 0:
            found.append(Advice(setting, value, saves, plan.program + peak <= plan.memory))
    return sorted(found, key=lambda advice: (not advice.fits, -advice.saves))


def _changes(experiment: Experiment, stage: StageName) -> Iterator[tuple[str, Any]]:
    training = getattr(experiment, stage).training
    batch, parts = training.batch_size, training.grad_accum_steps
    for more in (2, 8, batch // parts):
        if more > 1 and batch % (parts * more) == 0:
            yield f"{stage}.training.grad_accum_steps", parts * more
    if stage == "transformer":
        yield "transformer.checkpoint_activations", True
    if batch > 1:
        yield f"{stage}.training.batch_size", max(parts, batch // 2)
    yield "image_tokenizer.downsampling", 2 * experiment.image_tokenizer.downsampling
    for setting in HALVED[stage]:
        value: Any = reduce(getattr, setting.split("."), experiment)
        yield setting, value // 2


def _with(experiment: Experiment, setting: str, value: Any) -> Experiment:
    settings = experiment.model_dump()
    *sections, name = setting.split(".")
    section = settings
    for part in sections:
        section = section[part]
    section[name] = value
    return Experiment.model_validate(settings)

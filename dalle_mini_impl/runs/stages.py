"""The stages of a run, in order: the one table that all lists of stages are taken from."""

from dataclasses import dataclass
from typing import Literal

StageName = Literal["captions", "image_tokenizer", "codes", "transformer", "clip"]


@dataclass(frozen=True)
class Stage:
    """What a stage is made from and what it leaves; training/run_stages.py adds what it does."""

    name: StageName
    inputs: tuple[str, ...]
    """Sections of the experiment that its result depends on."""
    weights: str | None = None
    """Name of the weights that it trains; none for a stage that trains no model."""


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("captions", ("data", "captions")),
        Stage("image_tokenizer", ("data", "image_tokenizer"), "image_tokenizer"),
        Stage("codes", ("data", "image_tokenizer")),
        Stage("transformer", ("data", "captions", "image_tokenizer", "transformer"), "dalle"),
        Stage("clip", ("data", "captions", "image_tokenizer", "clip"), "clip"),
    )
}

MODEL_STAGES: tuple[StageName, ...] = tuple(s.name for s in STAGES.values() if s.weights)
"""Stages that train a model."""
WEIGHTS: dict[str, str] = {s.name: s.weights for s in STAGES.values() if s.weights}
"""The name of the weights of each of them."""
SIDE_BY_SIDE: tuple[StageName, StageName] = ("transformer", "clip")
"""Stages that do not need each other, so that two processes may train them at the same time."""

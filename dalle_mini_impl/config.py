"""The base of every configuration section, and the error that wrong configuration raises."""

import ast
import inspect
import textwrap
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""What every generator of random numbers takes, also with a little added."""
Beta = Annotated[float, Field(ge=0, lt=1)]
"""Decay of a running average."""


class ConfigError(ValueError):
    """A configuration that cannot work; the message names file, field, value and what to do."""


def load_function(reference: str, option: str) -> Callable[..., Any]:
    """Import the function that the user names as MODULE:FUNCTION; ConfigError if there is none.

    option: the option that names it, for the message.
    """
    module, _, name = reference.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{option} {reference}: {error}; write MODULE:FUNCTION, such as "
            "my_network:embed, where embed(images) maps images in [0, 1] to features"
        ) from error


class Config(BaseModel):
    """A frozen section: unknown keys are refused, the docstring under a field describes it.

    Every number has limits: beyond them training or sampling would fail later and less clearly.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def descriptions(section: type[Config]) -> dict[str, str]:
    """The docstring under each field, in one line.

    Only help and errors need them: pydantic would look for the source of every section at import.
    """
    found = {}
    for kind in reversed(section.__mro__):
        if not issubclass(kind, Config) or kind is Config:
            continue
        try:
            source = textwrap.dedent(inspect.getsource(kind))
        except (OSError, TypeError):  # there is no source
            continue
        definition = ast.parse(source).body[0]
        assert isinstance(definition, ast.ClassDef)
        for field, text in pairwise(definition.body):
            if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
                continue
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[field.target.id] = " ".join(str(text.value.value).split())
    return found


class TrainingConfig(Config):
    """Training of one stage. Schedules follow max(step / steps, elapsed / minutes)."""

    steps: int = Field(1000, gt=0, le=10**9)
    """Largest number of optimizer steps."""
    minutes: float | None = Field(None, gt=0, le=10**6)
    """Largest wall time; schedules end within it (only `steps` alone resumes exactly)."""
    batch_size: int = Field(32, gt=0, le=2**20)
    """Examples per optimizer step and process."""
    grad_accum_steps: int = Field(1, gt=0, le=2**20)
    """Micro-batches into which a step's batch is split to save memory."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """Muon for hidden matrices with AdamW for the rest, or AdamW for all."""
    learning_rate: float = Field(3e-3, gt=0, le=100)
    """Peak learning rate of AdamW."""
    muon_learning_rate: float = Field(0.02, gt=0, le=100)
    """Peak learning rate of Muon."""
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    """AdamW's decay of the averages of gradients and of their squares."""
    weight_decay: float = Field(0.01, ge=0, le=100)
    """Decoupled weight decay of matrices; gains and biases have none."""
    warmup: float = Field(0.02, ge=0, le=1)
    """Share of the run in which the learning rate rises from zero."""
    schedule: Literal["stable-decay", "cosine", "constant"] = "stable-decay"
    """Shape of the learning rate after warm-up."""
    decay: float = Field(0.4, ge=0, le=1)
    """Share of the run at its end in which `stable-decay` falls linearly."""
    final_learning_rate: float = Field(0.0, ge=0, le=1)
    """Share of the peak learning rate that remains at the end."""
    max_grad_norm: float | None = Field(1.0, gt=0, le=10**6)
    """Largest gradient norm; null turns clipping off."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay of the weight average that is saved and sampled from; 0 keeps the last weights."""
    keep: Literal["best", "last"] = "best"
    """Save the averaged weights with the lowest loss on validation images, or the last ones."""
    early_stop: float | None = Field(0.25, ge=0, le=1)
    """Share of the run without a lower loss on validation images that ends it; null or 0: never."""
    seed: Seed = 0
    """Seed of initialization, batches and noise."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 autocast or fp32; auto picks bf16 only where the hardware multiplies it natively."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile for the training step; auto compiles if the run is long enough to benefit."""
    checkpoint_minutes: float = Field(5.0, gt=0, le=10**6)
    """Minutes between checkpoints."""
    previews: int = Field(4, ge=0, le=10**4)
    """How often during the run preview images are saved."""
    log_every: int = Field(20, gt=0, le=10**9)
    """Steps between lines in metrics.jsonl."""

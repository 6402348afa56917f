"""Settings of the quantizers; `--help` reads them without importing torch."""

import math
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field, field_validator, model_validator

from dalle_mini_impl.config import Config

CodeCounts = Annotated[
    tuple[Annotated[int, Field(gt=1, le=2**22)], ...],
    Field(min_length=1, max_length=64),
    BeforeValidator(lambda value: (value,) if isinstance(value, int | str) else value),
]
"""Codes of each factor of a code; a number alone is a single factor."""
Gradients = Literal["straight-through", "rotation"]
Initialization = Literal["kmeans", "data", "random"]


class CategoricalConfig(Config):
    """A categorical posterior over a codebook, as in DALL·E's dVAE (arXiv 2102.12092).

    By default training decodes the likeliest code, the limit of a relaxation without noise at
    temperature 0, and the posterior only keeps all codes in use. `relaxation: soft` with
    `kl_weight` is the variational autoencoder of the paper.
    """

    type: Literal["categorical"] = "categorical"
    """A distribution over codes at each position, of which the likeliest is used afterwards."""
    codes: CodeCounts = (512,)
    """Codes of each factor."""
    width: int = Field(4, gt=1, le=2**12)
    """Channels of a codebook vector; with distances few are best, with free logits 64."""
    logits: Literal["distance", "free"] = "distance"
    """From a feature's distance to each code, or one output of the encoder per code (the paper)."""
    relaxation: Literal["straight-through", "soft", "hard"] = "straight-through"
    """The likeliest code, a mixture by Gumbel-softmax (the paper), or one drawn with its slope."""
    temperature: float = Field(1.0, ge=1e-3, le=1000)
    """τ of the relaxation at the start."""
    final_temperature: float = Field(1 / 16, ge=1e-3, le=1000)
    """τ at the end of its annealing."""
    annealing: float = Field(0.8, gt=0, le=1)
    """Share of the run in which τ falls to its final value."""
    noise: float | None = Field(0.6, gt=0, le=1)
    """Share of the run in which the Gumbel noise fades to nothing; null keeps it (the paper)."""
    kl_weight: float = Field(0.0, ge=0, le=10**6)
    """β as the paper counts it (6.6); divided by 3·downsampling² for losses averaged per value."""
    kl_warmup: float = Field(0.15, gt=0, le=1)
    """Share of the run in which β rises from zero."""
    entropy_weight: float = Field(0.0003, ge=0, le=10**6)
    """Weight of ln K minus the entropy of the batch's mean posterior; keeps all codes in use."""
    commitment: float = Field(0.01, ge=0, le=10**6)
    """Weight that keeps features near their codes, ‖z - sg[e]‖², with straight-through."""

    @model_validator(mode="after")
    def _relaxation_fits(self) -> "CategoricalConfig":
        if self.relaxation != "straight-through":
            return self
        if self.logits == "free":
            raise ValueError(
                "logits is free, but relaxation straight-through needs distances; use soft or hard"
            )
        for name in ("temperature", "final_temperature", "annealing", "noise"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, but relaxation straight-through has none; "
                    "use soft or hard"
                )
        return self

    @property
    def factors(self) -> tuple[int, ...]:
        """Codes of each factor."""
        return self.codes


class FiniteScalarConfig(Config):
    """Finite scalar quantization (arXiv 2309.15505): no codebook, no auxiliary loss."""

    type: Literal["finite_scalar"] = "finite_scalar"
    """Rounded channels as codes."""
    levels: tuple[str, ...] = Field(("8x8x8",), min_length=1, max_length=64)
    """For each factor of a code the levels of its channels; their product is its code count."""

    @field_validator("levels", mode="before")
    @classmethod
    def _one_factor_is_a_list_of_one(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("levels")
    @classmethod
    def _levels_quantize(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for factor in value:
            channels = factor.split("x")
            if not all(part.isascii() and part.isdigit() and int(part) > 1 for part in channels):
                raise ValueError(
                    f"levels has {factor!r}; write the levels of a factor's channels, each at "
                    "least 2, as in 8x8x8"
                )
        return value

    @property
    def channels(self) -> tuple[tuple[int, ...], ...]:
        """The levels of each channel, by factor."""
        return tuple(tuple(int(part) for part in factor.split("x")) for factor in self.levels)

    @property
    def factors(self) -> tuple[int, ...]:
        """Codes of each factor."""
        return tuple(math.prod(channels) for channels in self.channels)


class VectorConfig(Config):
    """Vector quantization (VQGAN, arXiv 2012.09841): each feature becomes its nearest code."""

    type: Literal["vector"] = "vector"
    """A learned codebook of unit vectors."""
    codes: CodeCounts = (512,)
    """Codes of each factor."""
    width: int = Field(8, gt=1, le=2**12)
    """Channels of a code, compared on the unit sphere; few keep all codes in use."""
    codebook: Literal["ema", "gradient"] = "ema"
    """Codes as running means of their features, or learned by the optimizer."""
    initialization: Initialization = "kmeans"
    """What codes start from: clusters of the first batch, its features, or noise."""
    gradients: Gradients = "rotation"
    """How gradients pass the quantizer."""
    dead_code_threshold: float = Field(0.03, ge=0, lt=1)
    """Codes used less than this share of uniform use move to the data; 0 turns this off."""
    commitment: float = Field(0.25, ge=0, le=10**6)
    """Weight that keeps features near their codes: ‖z - sg[e]‖²."""

    @property
    def factors(self) -> tuple[int, ...]:
        """Codes of each factor."""
        return self.codes


QuantizerConfig: TypeAlias = CategoricalConfig | FiniteScalarConfig | VectorConfig

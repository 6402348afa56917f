"""Settings of sampling; `--help` reads them without importing torch."""

from typing import Literal

from pydantic import Field, field_validator

from dalle_mini_impl.config import Config

Ranking = Literal["none", "clip", "likelihood", "ratio", "both"]


SEEDS = 2**128
"""Different seeds; larger ones repeat them."""


LEAST_TEMPERATURE = 0.001


class SamplingConfig(Config):
    """How images are sampled from the model."""

    num_images: int = Field(4, gt=0, le=2**12)
    """Images to keep for each caption, best first."""
    candidates: int = Field(16, gt=0, le=2**16)
    """Images to sample for each caption before ranking."""
    guidance: float = Field(2.0, ge=0, le=1000)
    """Guidance scale: 1 samples the model as it is, more follows the caption more closely."""
    guidance_schedule: Literal["constant", "rising", "falling"] = "constant"
    """Guidance over the codes of an image: constant, or moving linearly from or to 1."""
    guidance_until: float = Field(1.0, ge=0, le=1)
    """Share of an image's codes, from the first, that guidance acts on."""
    temperature: float = Field(1.0, ge=0, le=1000)
    """Divides the logits; 0 always takes the likeliest code (of several factors, each in turn)."""
    top_k: int = Field(0, ge=0, le=2**31)
    """Sample from the k likeliest codes only (of several factors, of each); 0 keeps all."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Sample from the likeliest codes (factors) that together reach this probability."""
    rank_by: Ranking = "clip"
    """Order of the candidates: by CLIP, ln p(codes | caption), its ratio to the null caption's, or
    both of the first two, each standardized over the candidates."""
    batch_size: int = Field(64, gt=0, le=2**16)
    """Candidates decoded at a time, to bound memory."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the decoding step; auto does once that pays. In fp32 the same codes come faster."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the blocks' matrix products: auto is bf16 where the hardware multiplies it. In fp32 a seed
    gives the same image in batches of any size; in bf16 rounding may occasionally change a code."""

    @field_validator("temperature")
    @classmethod
    def _logits_stay_finite(cls, value: float) -> float:
        if 0 < value < LEAST_TEMPERATURE:
            raise ValueError(
                f"logits divided by less than {LEAST_TEMPERATURE} overflow; write 0 for the "
                "likeliest code"
            )
        return value

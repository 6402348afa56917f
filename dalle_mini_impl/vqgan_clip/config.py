"""Settings of the optimizer."""

from typing import Literal

from pydantic import Field

from dalle_mini_impl.config import Config
from dalle_mini_impl.vqgan_clip.cutouts import CutoutsConfig


class OptimizeConfig(Config):
    """How long and how boldly the latents are pushed."""

    steps: int = Field(300, gt=0)
    """Steps of the optimizer."""
    learning_rate: float = Field(0.1, gt=0)
    """Largest change of a latent in a step, in deviations of the codebook."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the learning rate falls after its warmup."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from zero."""
    final_learning_rate: float = Field(0.1, ge=0, le=1)
    """Share of the learning rate that the cosine ends at."""
    total_variation: float = Field(0.0, ge=0)
    """Weight of the mean difference of neighboring pixels: more makes images smoother."""
    cutouts: CutoutsConfig = CutoutsConfig()
    """What the score sees of the image as it is pushed."""
    held_out: int = Field(4, ge=0)
    """Views, never pushed by, whose mean score chooses the best; 0 takes the plain image."""
    propose_every: int = Field(6, gt=0)
    """Steps between proposals, where something proposes."""
    propose_after: float = Field(0.4, ge=0, lt=1)
    """Share of the steps before the first proposals: noise must first become something."""

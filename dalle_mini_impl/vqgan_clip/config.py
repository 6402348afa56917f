"""Settings of the optimization."""

from typing import Literal

from pydantic import Field

from dalle_mini_impl.config import Config
from dalle_mini_impl.vqgan_clip.cutouts import CutoutsConfig


class OptimizeConfig(Config):
    """How many steps, how large, and how the best latents are chosen."""

    steps: int = Field(300, gt=0)
    """Optimizer steps."""
    learning_rate: float = Field(0.1, gt=0)
    """Largest change of a latent in a step, in standard deviations of the codebook."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after warm-up."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from zero."""
    final_learning_rate: float = Field(0.1, ge=0, le=1)
    """Share of the learning rate that is left at the end of the cosine."""
    total_variation: float = Field(0.0, ge=0)
    """Weight of the mean difference of neighboring pixels: more makes images smoother."""
    cutouts: CutoutsConfig = CutoutsConfig()
    """What the score sees of the image at each step."""
    held_out: int = Field(4, ge=0)
    """Fixed cutouts, not optimized for, whose mean score decides what is best; 0 scores the plain
    image."""
    propose_every: int = Field(6, gt=0)
    """Steps between proposals of the transformer."""
    propose_after: float = Field(0.4, ge=0, lt=1)
    """Share of the steps before the first proposals."""

"""Settings of the optimization; `--help` reads them without importing torch."""

from typing import Literal

from pydantic import Field

from dalle_mini_impl.config import Config


class CutoutsConfig(Config):
    """What the score sees of an image at each step."""

    count: int = Field(16, gt=0, le=2**12)
    """Cutouts at each step."""
    chunk: int = Field(16, gt=0, le=2**12)
    """Cutouts scored at a time, to bound memory; the result does not depend on it."""
    whole: float = Field(0.5, ge=0, le=1)
    """Share of the cutouts that are not cropped: crops do not show left and right."""
    smallest: float = Field(0.6, gt=0, le=1)
    """Smallest side of a crop, as a share of the image's."""
    flip: bool = False
    """Mirror half of the cutouts: wrong where prompts say left and right."""
    perspective: float = Field(0.08, ge=0, lt=0.5)
    """Largest displacement of a cutout's corners, as a share of the image's side."""
    color: float = Field(0.1, ge=0, lt=1)
    """Largest change of brightness, contrast and saturation, as a share of their range."""
    noise: float = Field(0.03, ge=0, le=100)
    """Standard deviation of the noise added to pixels in [0, 1]."""


class OptimizeConfig(Config):
    """How many steps, how large, and how the best latents are chosen."""

    steps: int = Field(300, gt=0, le=10**7)
    """Optimizer steps."""
    learning_rate: float = Field(0.1, gt=0, le=1000)
    """Largest change of a latent in a step, in standard deviations of the codebook."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after warm-up."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from zero."""
    final_learning_rate: float = Field(0.1, ge=0, le=1)
    """Share of the learning rate that is left at the end of the cosine."""
    total_variation: float = Field(0.0, ge=0, le=10**6)
    """Weight of the mean difference of neighboring pixels: more makes images smoother."""
    cutouts: CutoutsConfig = CutoutsConfig()
    """What the score sees of the image at each step."""
    held_out: int = Field(4, ge=0, le=2**12)
    """Fixed cutouts, not optimized for: their mean score picks the best; 0: the plain image's."""
    propose_every: int = Field(6, gt=0, le=10**7)
    """Steps between proposals of the transformer."""
    propose_after: float = Field(0.4, ge=0, lt=1)
    """Share of the steps before the first proposals."""


class CodePriorConfig(Config):
    """How codes are sampled near the current ones.

    Each proposal changes the whole image or a random rectangle of it.
    """

    count: int = Field(4, gt=0, le=2**12)
    """Proposals for each image at a time; the best of them is kept if it is better."""
    max_weight: float = Field(4.0, gt=0, le=10**6)
    """Largest weight of the distance to the current latents in the changed part."""
    min_weight: float = Field(0.25, gt=0, le=10**6)
    """Smallest such weight; each proposal draws its own between the two."""
    outside_weight: float = Field(32.0, gt=0, le=10**9)
    """Weight of the distance outside the changed part."""
    early_factor: float = Field(8.0, ge=1, le=10**6)
    """Factor on the weight at the first step; it falls to 1 at the last."""

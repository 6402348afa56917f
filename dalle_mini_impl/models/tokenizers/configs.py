"""The configurations of the image tokenizers that share one encoder and decoder."""

import math
from typing import Literal

from pydantic import Field, model_validator

from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.models.tokenizers.autoencoder import AutoencoderConfig
from dalle_mini_impl.models.tokenizers.perceptual import PerceptualConfig


class DvaeConfig(AutoencoderConfig):
    """DALL·E's discrete VAE (arXiv 2102.12092, appendix A.2)."""

    type: Literal["dvae"] = "dvae"
    """Gumbel-softmax codes, logit-Laplace likelihood, KL to the uniform prior."""
    code_count: int = Field(512, gt=1)
    """Codes in the codebook."""
    code_width: int = Field(64, gt=0)
    """Channels of a codebook vector."""
    kl_weight: float = Field(6.6, ge=0)
    """β as the paper counts it; divided by 3·downsampling² for losses averaged per value."""
    kl_warmup: float = Field(0.15, gt=0, le=1)
    """Share of the run in which β rises from zero."""
    temperature: float = Field(1.0, gt=0)
    """τ of the relaxation at the start."""
    final_temperature: float = Field(1 / 16, gt=0)
    """τ at the end of its annealing."""
    annealing: float = Field(0.8, gt=0, le=1)
    """Share of the run in which τ falls to its final value."""
    scale_weighting: float = Field(1.0, ge=0, le=1)
    """Power of the scale b that weighs a value's likelihood (arXiv 2203.09168); paper: 0."""
    dead_code_threshold: float = Field(0.1, ge=0, lt=1)
    """Codes chosen less than this share of uniform use have their logits raised; paper: 0."""
    training: TrainingConfig = TrainingConfig(steps=4000, batch_size=16)
    """How it is trained."""


class FsqConfig(AutoencoderConfig):
    """Finite scalar quantization (arXiv 2309.15505): no codebook, no auxiliary loss."""

    type: Literal["fsq"] = "fsq"
    """Rounded channels as codes, a pixel loss."""
    levels: tuple[int, ...] = Field((8, 8, 8), min_length=1)
    """Levels of each latent channel; their product is the code count."""
    pixel_loss: Literal["l1", "l2", "charbonnier"] = "l2"
    """Distance between image and reconstruction; charbonnier is a smooth L1."""
    training: TrainingConfig = TrainingConfig(steps=4000, batch_size=16)
    """How it is trained."""

    @model_validator(mode="after")
    def _levels_quantize(self) -> "FsqConfig":
        if min(self.levels) < 2:
            raise ValueError(f"levels is {self.levels}; every channel needs at least 2 levels")
        return self

    @property
    def code_count(self) -> int:
        """The product of the levels."""
        return math.prod(self.levels)


class VqganConfig(AutoencoderConfig):
    """VQGAN (arXiv 2012.09841): a learned codebook and a patch discriminator."""

    type: Literal["vqgan"] = "vqgan"
    """Vector quantization with pixel, perceptual and adversarial losses."""
    code_count: int = Field(512, gt=1)
    """Codes in the codebook."""
    code_width: int = Field(8, gt=1)
    """Channels of a code, compared on the unit sphere; few keep all codes in use."""
    codebook: Literal["ema", "gradient"] = "ema"
    """Codes as running means of their features, or learned by the optimizer."""
    initialization: Literal["kmeans", "data", "random"] = "kmeans"
    """What codes start from: clusters of the first batch, its features, or noise."""
    gradients: Literal["rotation", "straight-through"] = "rotation"
    """How gradients pass the quantizer."""
    dead_code_threshold: float = Field(0.03, ge=0, lt=1)
    """Codes used less than this share of uniform use move to the data; 0 turns this off."""
    commitment: float = Field(0.25, ge=0)
    """Weight that keeps features near their codes: ‖z - sg[e]‖²."""
    pixel_loss: Literal["l1", "l2", "charbonnier"] = "l1"
    """Distance between image and reconstruction; charbonnier is a smooth L1."""
    perceptual: float = Field(0.1, ge=0)
    """Weight of the distance between features, about ten times a pixel loss; 0 turns it off."""
    features: str = "trained"
    """Of a small network trained first, "clip" (the run's own), or MODULE:FUNCTION (LPIPS, …)."""
    feature_network: PerceptualConfig = PerceptualConfig()
    """The small network, where features is "trained"."""
    adversarial: float = Field(0.8, ge=0)
    """Weight of the adversarial loss; 0 trains no discriminator."""
    adversarial_balance: Literal["adaptive", "constant"] = "adaptive"
    """Scale the weight to the gradients of the reconstruction, as the paper does, or not."""
    adversarial_start: float = Field(0.5, ge=0, le=1)
    """Share of the run after which the discriminator takes part."""
    back_off: float = Field(1.0, gt=0)
    """Loss of held-out PSNR in dB, since the discriminator began, that halves its weight."""
    regularizer: Literal["none", "lecam", "r1"] = "lecam"
    """What keeps the discriminator from overfitting."""
    regularization: float = Field(0.1, ge=0)
    """Weight of the regularizer."""
    discriminator_width: int = Field(16, gt=0)
    """Channels of the discriminator's first layer; each further one doubles them, up to 8 times."""
    discriminator_layers: int = Field(3, gt=0)
    """Halvings of the image in the discriminator."""
    training: TrainingConfig = TrainingConfig(steps=4000, batch_size=16)
    """How it is trained."""

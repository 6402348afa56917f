"""The configuration of the image tokenizer: an autoencoder, a quantizer and an objective.

Each is chosen by itself. `preset` names well-known combinations.
"""

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dalle_mini_impl.config import Config, TrainingConfig
from dalle_mini_impl.models.tokenizers.autoencoder_configs import (
    AutoencoderConfig,
    ConvolutionsConfig,
    FormAndColorConfig,
    PaletteConfig,
    PatchesConfig,
)
from dalle_mini_impl.models.tokenizers.quantizer_configs import (
    CategoricalConfig,
    FiniteScalarConfig,
    QuantizerConfig,
)

PRESETS: dict[str, dict[str, Any]] = {
    "dvae": {"quantizer": {"type": "categorical"}},
    "fsq": {"quantizer": {"type": "finite_scalar"}},
    "vqgan": {
        "quantizer": {"type": "vector"},
        "likelihood": "l1",
        "objective": {"perceptual": {"weight": 0.1}, "adversarial": {"weight": 0.8}},
    },
}
"""What each preset sets; everything else has the same default in all of them."""


class PerceptualConfig(Config):
    """The feature network and how it is trained."""

    width: int = Field(24, gt=0, multiple_of=8, le=2**12)
    """Channels of the first stage; each later one, at half the side, has twice as many."""
    stages: int = Field(3, gt=0, le=12)
    """Stages, and so feature maps."""
    training: TrainingConfig = TrainingConfig(
        steps=400, minutes=1.0, batch_size=32, ema=0.99, previews=0
    )
    """How it is trained."""


class PerceptualLossConfig(Config):
    """The distance between features of an image and of its reconstruction."""

    weight: float = Field(0.0, ge=0, le=10**6)
    """Weight of the distance, about ten times a pixel loss; 0 turns it off."""
    features: str = "trained"
    """Of a small network trained first, "clip" (the run's own), or MODULE:FUNCTION (LPIPS, …)."""
    network: PerceptualConfig = PerceptualConfig()
    """The small network, where features is "trained"."""


class AdversarialConfig(Config):
    """The discriminator that VQGAN trains against (arXiv 2012.09841)."""

    weight: float = Field(0.0, ge=0, le=10**6)
    """Weight of the adversarial loss; 0 trains no discriminator."""
    balance: Literal["adaptive", "constant"] = "adaptive"
    """Scale the weight to the gradients of the reconstruction, as the paper does, or not."""
    start: float = Field(0.5, ge=0, le=1)
    """Share of the run after which the discriminator takes part."""
    back_off: float = Field(1.0, gt=0, le=10**6)
    """Loss of held-out PSNR in dB, since the discriminator began, that halves its weight."""
    regularizer: Literal["none", "lecam", "r1"] = "lecam"
    """What keeps the discriminator from overfitting."""
    regularization: float = Field(0.1, ge=0, le=10**6)
    """Weight of the regularizer."""
    width: int = Field(16, gt=0, le=2**12)
    """Channels of the discriminator's first layer; each further one doubles them, up to 8 times."""
    layers: int = Field(3, gt=0, le=12)
    """Halvings of the image in the discriminator."""


class ReconstructionConfig(Config):
    """The parts of the loss that compare images with their reconstructions."""

    foreground: float = Field(3.0, ge=0, le=10**6)
    """Extra weight of pixels that differ from the image's border color; 0 weighs all alike."""
    scale_weighting: float = Field(1.0, ge=0, le=1)
    """For logit_laplace: power of the scale b that weighs a value (arXiv 2203.09168); paper: 0."""
    patches: int = Field(0, ge=0, le=2**24)
    """Patches in a step, sampled from the batch's images; 0 trains on whole images."""
    plain_patches: float = Field(0.05, gt=0, le=1)
    """How much more rarely patches of a single color are sampled than others."""
    perceptual: PerceptualLossConfig = PerceptualLossConfig()
    """Distance between features."""
    adversarial: AdversarialConfig = AdversarialConfig()
    """A discriminator's judgment."""


class ImageTokenizerConfig(Config):
    """How images become codes and codes images."""

    preset: Literal["dvae", "fsq", "vqgan"] = "dvae"
    """dvae: categorical. fsq: finite scalars. vqgan: vectors, perceptual and adversarial losses."""
    downsampling: int = Field(8, gt=1, le=1024)
    """Side in pixels of the square that one code stands for."""
    autoencoder: Annotated[AutoencoderConfig, Field(discriminator="type")] = ConvolutionsConfig()
    """The networks on both sides of the codes."""
    quantizer: Annotated[QuantizerConfig, Field(discriminator="type")] = CategoricalConfig()
    """How features become codes."""
    likelihood: Literal["l2", "l1", "charbonnier", "logit_laplace"] = "l2"
    """Pixel loss (charbonnier: smooth L1), or DALL·E's distribution of pixels."""
    objective: ReconstructionConfig = ReconstructionConfig()
    """The parts of the loss."""
    training: TrainingConfig = TrainingConfig(steps=4000, batch_size=16)
    """How it is trained."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        name = values.get("preset", "dvae")
        preset = PRESETS.get(name, {}) if isinstance(name, str) else {}
        return _merged({"autoencoder": {"type": "convolutions"}, **preset}, values)

    @model_validator(mode="after")
    def _parts_fit(self) -> "ImageTokenizerConfig":
        if contradictions := [*self._sides(), *self._palette(), *self._patches()]:
            raise ValueError("\n".join(contradictions))
        return self

    @property
    def factors(self) -> tuple[int, ...]:
        """Codes of each factor of a code."""
        return self.quantizer.factors

    @property
    def code_count(self) -> int:
        """The product of the factors."""
        return math.prod(self.factors)

    def _sides(self) -> Iterator[str]:
        if not isinstance(self.autoencoder, ConvolutionsConfig):
            return
        patch = self.autoencoder.patch
        for name, value in (("downsampling", self.downsampling), ("autoencoder.patch", patch)):
            if value & (value - 1):
                yield f"{name} is {value}; choose a power of two, such as 4 or 8"
        if patch > self.downsampling:
            yield (
                f"autoencoder.patch is {patch} but downsampling only {self.downsampling}; "
                f"set autoencoder.patch to {self.downsampling} or less"
            )

        if isinstance(self.autoencoder, PatchesConfig) and self.autoencoder.margin % patch:
            yield (
                f"autoencoder.margin is {self.autoencoder.margin}, not a multiple of "
                f"autoencoder.patch {patch}; use {-(-self.autoencoder.margin // patch) * patch}"
            )

        if isinstance(self.autoencoder, FormAndColorConfig) and len(self.factors) < 2:
            yield (
                "autoencoder.type is form_and_color, but codes have a single factor; give the "
                "form and the color one each, as in quantizer.codes [512, 64]"
            )

    def _palette(self) -> Iterator[str]:
        if not isinstance(self.autoencoder, PaletteConfig):
            return
        colors, factors = self.autoencoder.colors, len(self.factors)
        if factors != 1 + colors:
            name = "levels" if isinstance(self.quantizer, FiniteScalarConfig) else "codes"
            yield (
                f"quantizer.{name} has {factors} factors, but a palette of {colors} colors has "
                f"{1 + colors}: the pattern, then each color; give {1 + colors}"
            )
        own = self.quantizer
        channels = own.channels[1:] if isinstance(own, FiniteScalarConfig) else ()
        if len({len(color) for color in channels}) > 1:
            yield (
                f"quantizer.levels gives the colors {[len(color) for color in channels]} channels; "
                "all colors of a palette need the same number, since one network reads them"
            )
        if self.likelihood == "logit_laplace":
            yield (
                "likelihood is logit_laplace, but a palette's colors are pixels without a scale; "
                "use l2, l1 or charbonnier"
            )
        if self.objective.adversarial.weight and self.objective.adversarial.balance == "adaptive":
            yield (
                "objective.adversarial.balance is adaptive, which needs the convolution that a "
                "palette does not end in; use constant"
            )

    def _patches(self) -> Iterator[str]:
        own = self.objective
        if own.patches == 0:
            return
        if not isinstance(self.autoencoder, PaletteConfig):
            yield (
                f"objective.patches is {own.patches}, but with autoencoder.type "
                f"{self.autoencoder.type} a patch depends on its neighbors; use 0, or palette"
            )
        for name in ("foreground", "perceptual.weight", "adversarial.weight"):
            section, _, field = name.rpartition(".")
            if value := getattr(getattr(own, section) if section else own, field):
                yield (
                    f"objective.{name} is {value}, which needs whole images; use 0, or "
                    f"objective.patches 0"
                )


def _merged(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """`given`, with `defaults` for what it does not set, section by section."""
    merged = {**defaults, **given}
    for name, default in defaults.items():
        value = given.get(name)
        if isinstance(default, dict) and isinstance(value, dict):
            merged[name] = _merged(default, value)
    return merged

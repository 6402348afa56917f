"""Image tokenizers: images to a grid of integer codes and back.

One encoder, one decoder; the types differ in their quantizer and in how the decoder's maps become
pixels, nowhere else.
"""

from typing import Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from dalle_mini_impl.config import ConfigError, TrainingConfig
from dalle_mini_impl.models.tokenizers.autoencoder import ENCODERS, AutoencoderConfig, Decoder
from dalle_mini_impl.models.tokenizers.palette import PaletteConfig, PaletteDecoder, PaletteEncoder
from dalle_mini_impl.models.tokenizers.perceptual import PerceptualConfig
from dalle_mini_impl.models.tokenizers.pixels import LogitLaplacePixels, PlainPixels
from dalle_mini_impl.models.tokenizers.quantizers import (
    FiniteScalarQuantizer,
    GumbelQuantizer,
    ProductQuantizer,
)
from dalle_mini_impl.models.tokenizers.vector_quantizer import EmaVectorQuantizer, VectorQuantizer


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
    """Codes chosen less than this share of the even use have their logits raised; paper: 0."""
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


class VqganConfig(AutoencoderConfig):
    """VQGAN (arXiv 2012.09841): a learned codebook and a critic of patches."""

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
    """Codes used less than this share of the even use move to the data; 0 leaves them."""
    commitment: float = Field(0.25, ge=0)
    """Weight that keeps features near their codes: ‖z - sg[e]‖²."""
    pixel_loss: Literal["l1", "l2", "charbonnier"] = "l1"
    """Distance between image and reconstruction; charbonnier is a smooth L1."""
    perceptual: float = Field(0.1, ge=0)
    """Weight of the distance between features, some ten times a pixel loss; 0 does without."""
    features: str = "trained"
    """Of a small network trained first, "clip" (the run's own), or MODULE:FUNCTION (LPIPS, …)."""
    feature_network: PerceptualConfig = PerceptualConfig()
    """The small network, where features is "trained"."""
    adversarial: float = Field(0.8, ge=0)
    """Weight of the adversarial loss; 0 does without a discriminator."""
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


class Reconstruction(NamedTuple):
    """What training needs of one pass through the tokenizer."""

    maps: Float[Tensor, "b m h w"]
    features: Float[Tensor, "b c g g"]
    latents: Float[Tensor, "b d g g"]
    codes: Int[Tensor, "b n"]


class ImageTokenizer(nn.Module):
    """Images in [0, 1] of one size to `grid`² codes in [0, code_count), and back.

    factors: a code is a number with a digit for each, the one that counts ones first; their product
    is the code count.
    """

    def __init__(
        self,
        image_size: int,
        downsampling: int,
        encoder: nn.Module,
        quantizer: GumbelQuantizer | FiniteScalarQuantizer | VectorQuantizer | ProductQuantizer,
        decoder: nn.Module,
        pixels: LogitLaplacePixels | PlainPixels,
    ):
        super().__init__()
        self.image_size = image_size
        self.downsampling = downsampling
        self.grid = image_size // downsampling
        self.code_count = quantizer.code_count
        self.factors: tuple[int, ...] = (quantizer.code_count,)
        if isinstance(quantizer, ProductQuantizer):
            self.factors = quantizer.factors
        self.quantizer = quantizer
        self.pixels = pixels
        self.encoder = encoder
        self.decoder = decoder
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Float[Tensor, "b 3 h w"], *relaxation: Tensor) -> Reconstruction:
        """One training pass; `relaxation`: what the quantizer's forward takes after features."""
        features = self.encoder(self._checked(images))
        latents, codes = self.quantizer(features, *relaxation)
        return Reconstruction(self.decoder(latents), features, latents, _flat(codes))

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Int[Tensor, "b n"]:
        """Codes in row-major order; ValueError for images of another size."""
        return _flat(self.quantizer.codes(self.encoder(self._checked(images))))

    def decode(self, codes: Int[Tensor, "b n"]) -> Float[Tensor, "b 3 h w"]:
        """Images in [0, 1]; IndexError for codes that do not exist."""
        return self.decode_latents(self.embed(codes))

    def embed(self, codes: Int[Tensor, "b n"]) -> Float[Tensor, "b d g g"]:
        """The latents that the codes stand for."""
        if codes.shape[1] != self.grid**2:
            raise ValueError(
                f"{codes.shape[1]} codes per image, but an image has {self.grid}×{self.grid}"
            )
        return self.quantizer.embed(rearrange(codes, "b (h w) -> b h w", h=self.grid))

    def decode_latents(self, latents: Float[Tensor, "b d g g"]) -> Float[Tensor, "b 3 h w"]:
        """Images in [0, 1], differentiable in the latents."""
        return self.pixels.images(self.decoder(latents))

    def quantize(
        self, latents: Float[Tensor, "b d g g"]
    ) -> tuple[Float[Tensor, "b d g g"], Int[Tensor, "b n"]]:
        """The nearest latents that are codes, with the gradient straight through, and the codes."""
        nearest, codes = self.quantizer.nearest(latents)
        return nearest, _flat(codes)

    def _checked(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"images of {images.shape[-2]}×{images.shape[-1]} pixels given to an image "
                f"tokenizer trained for {self.image_size}×{self.image_size}; resize them first"
            )
        return images


ImageTokenizerConfig = DvaeConfig | FsqConfig | VqganConfig | PaletteConfig
VECTOR_QUANTIZERS = {"ema": EmaVectorQuantizer, "gradient": VectorQuantizer}


def build_image_tokenizer(config: ImageTokenizerConfig, image_size: int) -> ImageTokenizer:
    """The tokenizer of a configuration; ConfigError if the grid does not fit the images."""
    if image_size % config.downsampling:
        raise ConfigError(
            f"data.image_size {image_size} is not divisible by image_tokenizer.downsampling "
            f"{config.downsampling}; use {image_size // config.downsampling * config.downsampling} "
            f"or another downsampling"
        )
    match config:
        case DvaeConfig():
            gumbel = GumbelQuantizer(
                config.code_count, config.code_width, config.dead_code_threshold
            )
            return _assemble(config, image_size, gumbel, LogitLaplacePixels())
        case FsqConfig():
            scalar = FiniteScalarQuantizer(config.levels)
            return _assemble(config, image_size, scalar, PlainPixels())
        case VqganConfig():
            vector = VECTOR_QUANTIZERS[config.codebook](
                config.code_count,
                config.code_width,
                config.gradients,
                config.initialization,
                config.dead_code_threshold,
            )
            return _assemble(config, image_size, vector, PlainPixels())
        case PaletteConfig():
            levels = [config.pattern_levels, *[config.color_levels] * config.colors]
            return ImageTokenizer(
                image_size,
                config.downsampling,
                PaletteEncoder(config),
                ProductQuantizer(levels),
                PaletteDecoder(config),
                PlainPixels(),
            )


def _assemble(
    config: AutoencoderConfig,
    image_size: int,
    quantizer: GumbelQuantizer | FiniteScalarQuantizer | VectorQuantizer,
    pixels: LogitLaplacePixels | PlainPixels,
) -> ImageTokenizer:
    """A quantizer between the encoder and decoder that all but the palette share."""
    encoder = ENCODERS[config.encoder](config, quantizer.features, quantizer.feature_gain)
    decoder = Decoder(config, quantizer.latents, pixels.maps)
    return ImageTokenizer(image_size, config.downsampling, encoder, quantizer, decoder, pixels)


def _flat(codes: Int[Tensor, "b h w"]) -> Int[Tensor, "b n"]:
    return rearrange(codes, "b h w -> b (h w)")

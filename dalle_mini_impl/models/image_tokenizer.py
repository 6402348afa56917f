"""Image tokenizers: pictures to a grid of integer codes and back.

One encoder, one decoder; the types differ in their quantizer and in how the decoder's maps become
pixels. Convolutions run channels-last on a space-to-depth stem: hardly any work is done at full
resolution, which is what makes them fast on a CPU.
"""

import math
from typing import Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from dalle_mini_impl.config import Config, ConfigError
from dalle_mini_impl.models.quantizers import FiniteScalarQuantizer, GumbelQuantizer
from dalle_mini_impl.settings import TrainingConfig


class AutoencoderConfig(Config):
    """The encoder and decoder that every image tokenizer has."""

    downsampling: int = Field(8, gt=0)
    """Side in pixels of the square that one code stands for; a power of two."""
    patch: int = Field(4, gt=0)
    """Pixels per side that the stem folds into channels; a power of two, at most downsampling."""
    width: int = Field(64, gt=0)
    """Channels at the code grid; each finer level has half of the next."""
    blocks: int = Field(2, ge=0)
    """Residual blocks per level, in the encoder and in the decoder."""
    foreground: float = Field(3.0, ge=0)
    """Extra weight of pixels that differ from the picture's border colour; 0 weighs all alike."""

    @model_validator(mode="after")
    def _levels_fit(self) -> "AutoencoderConfig":
        for name in ("downsampling", "patch"):
            value = getattr(self, name)
            if value & (value - 1):
                raise ValueError(f"{name} is {value}; choose a power of two, such as 4 or 8")
        if self.patch > self.downsampling:
            raise ValueError(
                f"patch is {self.patch} but downsampling only {self.downsampling}; "
                f"set patch to {self.downsampling} or less"
            )
        return self

    def widths(self) -> list[int]:
        """Channels per level, the finest first and the code grid last."""
        levels = int(math.log2(self.downsampling // self.patch)) + 1
        return [max(32, self.width // 2**i) for i in reversed(range(1, levels))] + [self.width]


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
    training: TrainingConfig = TrainingConfig(steps=4000, batch_size=16)
    """How it is trained."""


class FsqConfig(AutoencoderConfig):
    """Finite scalar quantisation (arXiv 2309.15505): no codebook, no auxiliary loss."""

    type: Literal["fsq"] = "fsq"
    """Rounded channels as codes, a pixel loss."""
    levels: tuple[int, ...] = Field((8, 8, 8), min_length=1)
    """Levels of each latent channel; their product is the code count."""
    pixel_loss: Literal["l1", "l2", "charbonnier"] = "l2"
    """Distance between picture and reconstruction; charbonnier is a smooth L1."""
    training: TrainingConfig = TrainingConfig(steps=4000, batch_size=16)
    """How it is trained."""

    @model_validator(mode="after")
    def _levels_quantise(self) -> "FsqConfig":
        if min(self.levels) < 2:
            raise ValueError(f"levels is {self.levels}; every channel needs at least 2 levels")
        return self


class ResidualBlock(nn.Module):
    """x + f(x) with two 3×3 convolutions, normalised before."""

    def __init__(self, width: int, depth: int):
        super().__init__()
        self.norm = nn.GroupNorm(max(1, width // 32), width)
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.outer = nn.Conv2d(width, width, 3, padding=1)
        # The paper's gain of 1/depth² on each branch, put into the weights that start it.
        with torch.no_grad():
            self.outer.weight.div_(depth)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.outer(F.relu(self.inner(F.relu(self.norm(x)))))


class Encoder(nn.Module):
    """Images in [0, 1] to features on the code grid."""

    def __init__(self, config: AutoencoderConfig, features: int, feature_gain: float = 1.0):
        super().__init__()
        widths = config.widths()
        depth = max(1, config.blocks * len(widths))
        layers: list[nn.Module] = [
            nn.PixelUnshuffle(config.patch),
            nn.Conv2d(3 * config.patch**2, widths[0], 3, padding=1),
        ]
        for level, width in enumerate(widths):
            if level:
                layers.append(nn.Conv2d(widths[level - 1], width, 2, stride=2))
            layers += [ResidualBlock(width, depth) for _ in range(config.blocks)]
        to_features = nn.Conv2d(width, features, 1)
        layers += [nn.GroupNorm(1, width), nn.ReLU(), to_features]
        with torch.no_grad():
            to_features.weight.mul_(feature_gain)
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c g g"]:
        maps = self.layers((2 * images - 1).contiguous(memory_format=torch.channels_last))
        return maps.float()  # Logits and rounding need more than autocast's bf16.


class Decoder(nn.Module):
    """Latents on the code grid to maps at full resolution."""

    def __init__(self, config: AutoencoderConfig, latents: int, maps: int):
        super().__init__()
        widths = config.widths()
        depth = max(1, config.blocks * len(widths))
        layers: list[nn.Module] = [nn.Conv2d(latents, widths[-1], 3, padding=1)]
        for level in reversed(range(len(widths))):
            width = widths[level]
            layers += [ResidualBlock(width, depth) for _ in range(config.blocks)]
            if level:
                layers += [nn.Conv2d(width, 4 * widths[level - 1], 1), nn.PixelShuffle(2)]
        layers += [
            nn.GroupNorm(1, width),
            nn.ReLU(),
            nn.Conv2d(width, maps * config.patch**2, 3, padding=1),
            nn.PixelShuffle(config.patch),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Float[Tensor, "b d g g"]) -> Float[Tensor, "b m h w"]:
        return self.layers(latents.contiguous(memory_format=torch.channels_last)).float()


class LogitLaplacePixels:
    """DALL·E's pixel distribution (arXiv 2102.12092, appendix A.3): maps are μ and ln b.

    A pixel x in [0, 1] is squeezed to φ(x) = (1 - 2ε)x + ε, whose logit is Laplace distributed.
    """

    maps = 6
    epsilon = 0.1

    def images(self, maps: Float[Tensor, "b 6 h w"]) -> Float[Tensor, "b 3 h w"]:
        """The median of the distribution, φ⁻¹(σ(μ)), in [0, 1]."""
        mean, _ = maps.chunk(2, dim=1)
        return ((mean.sigmoid() - self.epsilon) / (1 - 2 * self.epsilon)).clamp(0, 1)

    def scales(self, maps: Float[Tensor, "b 6 h w"]) -> Float[Tensor, "b 3 h w"]:
        """b, the scale of the Laplace distribution of every value."""
        return maps.chunk(2, dim=1)[1].exp()

    def negative_log_likelihood(
        self, maps: Float[Tensor, "b 6 h w"], images: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b 3 h w"]:
        """-ln of the density of φ(x), per value, in nats."""
        mean, log_scale = maps.chunk(2, dim=1)
        mapped = (1 - 2 * self.epsilon) * images + self.epsilon
        distance = (torch.logit(mapped) - mean).abs() * torch.exp(-log_scale)
        return distance + log_scale + math.log(2) + torch.log(mapped * (1 - mapped))


class PlainPixels:
    """Maps that are the pixels themselves, centred on mid-grey."""

    maps = 3

    def images(self, maps: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return self.unclamped(maps).clamp(0, 1)

    def unclamped(self, maps: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Pixels that may leave [0, 1]: what training compares, since a clamp stops gradients."""
        return 0.5 + 0.5 * maps


class Reconstruction(NamedTuple):
    """What training needs of one pass through the tokenizer."""

    maps: Float[Tensor, "b m h w"]
    features: Float[Tensor, "b c g g"]
    latents: Float[Tensor, "b d g g"]
    codes: Int[Tensor, "b n"]


class ImageTokenizer(nn.Module):
    """Images in [0, 1] of one size to `grid`² codes in [0, code_count), and back."""

    def __init__(
        self,
        config: AutoencoderConfig,
        image_size: int,
        quantizer: GumbelQuantizer | FiniteScalarQuantizer,
        pixels: LogitLaplacePixels | PlainPixels,
    ):
        super().__init__()
        self.image_size = image_size
        self.downsampling = config.downsampling
        self.grid = image_size // config.downsampling
        self.code_count = quantizer.code_count
        self.quantizer = quantizer
        self.pixels = pixels
        self.encoder = Encoder(config, quantizer.features, quantizer.feature_gain)
        self.decoder = Decoder(config, quantizer.latents, pixels.maps)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Float[Tensor, "b 3 h w"], *relaxation: Tensor) -> Reconstruction:
        """One training pass; `relaxation`: what the quantizer's forward takes after features."""
        features = self.encoder(self._checked(images))
        latents, codes = self.quantizer(features, *relaxation)
        return Reconstruction(self.decoder(latents), features, latents, _flat(codes))

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Int[Tensor, "b n"]:
        """Codes in row-major order; ValueError for pictures of another size."""
        return _flat(self.quantizer.codes(self.encoder(self._checked(images))))

    def decode(self, codes: Int[Tensor, "b n"]) -> Float[Tensor, "b 3 h w"]:
        """Images in [0, 1]; IndexError for codes that do not exist."""
        return self.decode_latents(self.embed(codes))

    def embed(self, codes: Int[Tensor, "b n"]) -> Float[Tensor, "b d g g"]:
        """The latents that the codes stand for."""
        if codes.shape[1] != self.grid**2:
            raise ValueError(
                f"{codes.shape[1]} codes per picture, but a picture has {self.grid}×{self.grid}"
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
                f"pictures of {images.shape[-2]}×{images.shape[-1]} pixels given to an image "
                f"tokenizer trained for {self.image_size}×{self.image_size}; resize them first"
            )
        return images


ImageTokenizerConfig = DvaeConfig | FsqConfig


def build_image_tokenizer(config: ImageTokenizerConfig, image_size: int) -> ImageTokenizer:
    """The tokenizer of a configuration; ConfigError if the grid does not fit the pictures."""
    if image_size % config.downsampling:
        raise ConfigError(
            f"data.image_size {image_size} is not divisible by image_tokenizer.downsampling "
            f"{config.downsampling}; use {image_size // config.downsampling * config.downsampling} "
            f"or another downsampling"
        )
    match config:
        case DvaeConfig():
            gumbel = GumbelQuantizer(config.code_count, config.code_width)
            return ImageTokenizer(config, image_size, gumbel, LogitLaplacePixels())
        case FsqConfig():
            scalar = FiniteScalarQuantizer(config.levels)
            return ImageTokenizer(config, image_size, scalar, PlainPixels())


def _flat(codes: Int[Tensor, "b h w"]) -> Int[Tensor, "b n"]:
    return rearrange(codes, "b h w -> b (h w)")

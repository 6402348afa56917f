"""Image tokenizers: images to a grid of integer codes and back.

One encoder, one decoder; the types differ in their quantizer and in how the decoder's maps become
pixels, nowhere else.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.models.tokenizers.autoencoder import ENCODERS, AutoencoderConfig, Decoder
from dalle_mini_impl.models.tokenizers.configs import DvaeConfig, FsqConfig, VqganConfig
from dalle_mini_impl.models.tokenizers.palette import PaletteConfig, PaletteDecoder, PaletteEncoder
from dalle_mini_impl.models.tokenizers.pixels import LogitLaplacePixels, PlainPixels
from dalle_mini_impl.models.tokenizers.quantizers import (
    FiniteScalarQuantizer,
    GumbelQuantizer,
    ProductQuantizer,
)
from dalle_mini_impl.models.tokenizers.vector_quantizer import EmaVectorQuantizer, VectorQuantizer


class Reconstruction(NamedTuple):
    """What training needs of one pass through the tokenizer."""

    maps: Float[Tensor, "b m h w"]
    features: Float[Tensor, "b c g g"]
    latents: Float[Tensor, "b d g g"]
    codes: Int[Tensor, "b n"]


class ImageTokenizer(nn.Module):
    """Images in [0, 1] of one size to `grid`² codes in [0, code_count), and back.

    factors: a code is a number with one digit per factor, the least significant first; their
    product is the code count.
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
"""The experiment's section image_tokenizer; its field `type` tells which."""
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

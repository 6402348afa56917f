"""The image tokenizer: images to a grid of integer codes and back.

An autoencoder, a quantizer between its halves, and how the decoder's maps become pixels.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.models.tokenizers.autoencoder_configs import (
    FormAndColorConfig,
    PaletteConfig,
    PatchesConfig,
)
from dalle_mini_impl.models.tokenizers.configs import ImageTokenizerConfig
from dalle_mini_impl.models.tokenizers.convolutions import Decoder, Encoder
from dalle_mini_impl.models.tokenizers.form_and_color import FormAndColorEncoder
from dalle_mini_impl.models.tokenizers.palette import PaletteDecoder, PaletteEncoder
from dalle_mini_impl.models.tokenizers.patches import PatchEncoder
from dalle_mini_impl.models.tokenizers.pixels import LogitLaplacePixels, PlainPixels
from dalle_mini_impl.models.tokenizers.product import ProductQuantizer, build_quantizer


class Reconstruction(NamedTuple):
    """What training needs of one pass through the tokenizer."""

    maps: Float[Tensor, "b m h w"]
    latents: Float[Tensor, "b d g g"]
    losses: dict[str, Tensor]
    """The quantizer's, by name."""


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
        quantizer: ProductQuantizer,
        decoder: nn.Module,
        pixels: LogitLaplacePixels | PlainPixels,
    ):
        super().__init__()
        self.image_size = image_size
        self.downsampling = downsampling
        self.grid = image_size // downsampling
        self.code_count = quantizer.code_count
        self.factors = quantizer.factors
        self.quantizer = quantizer
        self.pixels = pixels
        self.encoder = encoder
        self.decoder = decoder
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Float[Tensor, "b 3 h w"], *relaxation: Tensor) -> Reconstruction:
        """One training pass; `relaxation`: a categorical quantizer's `Relaxation`."""
        features = self.encoder(self._checked(images))
        latents, losses = self.quantizer(features, *relaxation)
        return Reconstruction(self.decoder(latents), latents, losses)

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Int[Tensor, "b n"]:
        """Codes in row-major order; ValueError for images of another size."""
        return _flat(self.quantizer.codes(self.encoder(self._checked(images))))

    def sample_codes(
        self, images: Float[Tensor, "b 3 h w"], temperature: float, generator: torch.Generator
    ) -> Int[Tensor, "b n"]:
        """Codes drawn from the posterior of a categorical quantizer; others raise ConfigError."""
        features = self.encoder(self._checked(images))
        return _flat(self.quantizer.sample(features, temperature, generator))

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
        nearest = self.quantizer.nearest(latents)
        return nearest.latents, _flat(nearest.codes)

    def _checked(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"images of {images.shape[-2]}×{images.shape[-1]} pixels given to an image "
                f"tokenizer trained for {self.image_size}×{self.image_size}; resize them first"
            )
        return images


def build_image_tokenizer(config: ImageTokenizerConfig, image_size: int) -> ImageTokenizer:
    """The tokenizer of a configuration; ConfigError if the grid does not fit the images."""
    cell = config.downsampling
    if image_size % cell:
        raise ConfigError(
            f"data.image_size {image_size} is not divisible by image_tokenizer.downsampling "
            f"{cell}; use {image_size // cell * cell} or another downsampling"
        )
    pixels: LogitLaplacePixels | PlainPixels
    if config.likelihood == "logit_laplace":
        pixels = LogitLaplacePixels(config.objective.scale_weighting)
    else:
        pixels = PlainPixels(config.likelihood)
    quantizer = build_quantizer(config.quantizer)
    own, features, latents = config.autoencoder, quantizer.features, quantizer.latents
    encoder: nn.Module
    decoder: nn.Module
    if isinstance(own, PaletteConfig):
        encoder = PaletteEncoder(own, cell, features, quantizer.feature_gain)
        decoder = PaletteDecoder(own, cell, latents, pixels.maps)
    else:
        if isinstance(own, FormAndColorConfig):
            encoder = FormAndColorEncoder(own, cell, features, quantizer.feature_gain)
        elif isinstance(own, PatchesConfig):
            encoder = PatchEncoder(own, cell, sum(features), quantizer.feature_gain)
        else:
            encoder = Encoder(own, cell, sum(features), quantizer.feature_gain)
        decoder = Decoder(own, cell, sum(latents), pixels.maps)
    return ImageTokenizer(image_size, cell, encoder, quantizer, decoder, pixels)


def _flat(codes: Int[Tensor, "b h w"]) -> Int[Tensor, "b n"]:
    return rearrange(codes, "b h w -> b (h w)")

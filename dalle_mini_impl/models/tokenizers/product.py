"""A quantizer of one or several factors: groups of channels, each with a codebook of its own.

A code is a number with one digit per factor, the least significant first. A combination of digits
that training never showed together is still a code whose parts are known.
"""

import math
from collections.abc import Sequence
from itertools import chain
from typing import TypeAlias, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.models.tokenizers.categorical import CategoricalQuantizer, build_categorical
from dalle_mini_impl.models.tokenizers.finite_scalar import FiniteScalarQuantizer
from dalle_mini_impl.models.tokenizers.quantizer import Nearest, Quantized, Relaxation
from dalle_mini_impl.models.tokenizers.quantizer_configs import (
    CategoricalConfig,
    FiniteScalarConfig,
    QuantizerConfig,
    VectorConfig,
)
from dalle_mini_impl.models.tokenizers.vector_quantizer import VectorQuantizer, build_vector

Quantizer: TypeAlias = CategoricalQuantizer | FiniteScalarQuantizer | VectorQuantizer


def build_quantizer(config: QuantizerConfig) -> "ProductQuantizer":
    """The quantizer of a configuration, with one part per factor."""
    match config:
        case CategoricalConfig():
            return ProductQuantizer([build_categorical(count, config) for count in config.codes])
        case FiniteScalarConfig():
            return ProductQuantizer([FiniteScalarQuantizer(own) for own in config.channels])
        case VectorConfig():
            return ProductQuantizer([build_vector(count, config) for count in config.codes])


class ProductQuantizer(nn.Module):
    """Groups of channels, each quantized by its own part; all parts are of one kind.

    factors: the code counts of the parts, the least significant digit first.
    """

    def __init__(self, parts: Sequence[Quantizer]):
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.factors = tuple(part.code_count for part in parts)
        self.code_count = math.prod(self.factors)
        self.features = [part.features for part in parts]
        self.latents = [part.latents for part in parts]
        self.feature_gain: float = parts[0].feature_gain

    def each(self) -> list[Quantizer]:
        """The parts, one per factor."""
        return cast(list[Quantizer], list(self.parts))

    @torch.no_grad()
    def codebooks(self) -> list[Float[Tensor, "_ _"]]:
        """The latents of all codes of each factor."""
        device = next(chain(self.parameters(), self.buffers())).device
        return [
            part.embed(torch.arange(part.code_count, device=device)[None, None])[0, :, 0].T.float()
            for part in self.each()
        ]

    def forward(self, features: Float[Tensor, "b c h w"], *relaxation: Tensor) -> Quantized:
        """One training pass; relaxation: a `Relaxation` with the noise of all factors, or none.

        Losses are sums over the factors.
        """
        groups = features.split(self.features, dim=1)
        if not relaxation:
            return self._join([part(own) for part, own in zip(self.parts, groups, strict=True)])
        noise = relaxation[0].split(self.factors, dim=-1)
        return self._join(
            [
                part(own, Relaxation(own_noise, relaxation[1]))
                for part, own, own_noise in zip(self.parts, groups, noise, strict=True)
            ]
        )

    def codes(self, features: Float[Tensor, "b c h w"]) -> Int[Tensor, "b h w"]:
        groups = features.split(self.features, dim=1)
        return self._number([p.codes(own) for p, own in zip(self.each(), groups, strict=True)])

    def sample(
        self, features: Float[Tensor, "b c h w"], temperature: float, generator: torch.Generator
    ) -> Int[Tensor, "b h w"]:
        """Codes drawn from the posteriors of all factors; ConfigError where there are none."""
        digits = []
        for part, own in zip(self.each(), features.split(self.features, dim=1), strict=True):
            if not isinstance(part, CategoricalQuantizer):
                raise ConfigError(
                    f"posterior_temperature {temperature:g}: this image tokenizer's quantizer has "
                    "no posterior to draw codes from; only categorical has one"
                )
            digits.append(part.sample(own, temperature, generator))
        return self._number(digits)

    def embed(self, codes: Int[Tensor, "b h w"]) -> Float[Tensor, "b d h w"]:
        latents, rest = [], codes
        *parts, last = self.each()
        for part in parts:
            latents.append(part.embed(rest % part.code_count))
            rest = rest // part.code_count
        # No remainder here, so that codes beyond the last one raise an error.
        return torch.cat((*latents, last.embed(rest)), dim=1)

    def nearest(self, latents: Float[Tensor, "b d h w"]) -> Nearest:
        """The codes closest to `latents`, with gradients passed straight through."""
        groups = latents.split(self.latents, dim=1)
        found = [part.nearest(own) for part, own in zip(self.each(), groups, strict=True)]
        together = torch.cat([own.latents for own in found], dim=1)
        return Nearest(together, self._number([own.codes for own in found]))

    def _join(self, quantized: list[Quantized]) -> Quantized:
        losses = {
            name: torch.stack([own.losses[name] for own in quantized]).sum()
            for name in quantized[0].losses
        }
        return Quantized(torch.cat([own.latents for own in quantized], dim=1), losses)

    def _number(self, digits: list[Int[Tensor, "b h w"]]) -> Int[Tensor, "b h w"]:
        codes, unit = torch.zeros_like(digits[0]), 1
        for digit, count in zip(digits, self.factors, strict=True):
            codes, unit = codes + digit * unit, unit * count
        return codes

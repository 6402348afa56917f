"""The encoder and decoder that all image tokenizers share.

Convolutions run channels-last after a space-to-depth stem, so little work is done at full
resolution; this makes them fast on a CPU.
"""

import math
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from dalle_mini_impl.config import Config


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
    encoder: Literal["convolutions", "patches"] = "convolutions"
    """patches: a code depends on its own patch alone, so equal patches have equal codes."""
    attention: int = Field(0, ge=0)
    """Self-attention blocks at the code grid, in the encoder and in the decoder."""
    foreground: float = Field(3.0, ge=0)
    """Extra weight of pixels that differ from the image's border color; 0 weighs all alike."""

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


class ResidualBlock(nn.Module):
    """x + f(x) with two 3×3 convolutions, normalized before."""

    def __init__(self, width: int, depth: int):
        super().__init__()
        self.norm = nn.GroupNorm(max(1, width // 32), width)
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.outer = nn.Conv2d(width, width, 3, padding=1)
        # Like the paper's gain on each residual branch, but in its initial weights.
        with torch.no_grad():
            self.outer.weight.div_(depth)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.outer(F.relu(self.inner(F.relu(self.norm(x)))))


class AttentionBlock(nn.Module):
    """x + self-attention over all positions of the grid."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.project_in = nn.Conv2d(width, 3 * width, 1)
        self.project_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        projected = rearrange(self.project_in(self.norm(x)), "b (n c) h w -> n b 1 (h w) c", n=3)
        query, key, value = projected
        mixed = F.scaled_dot_product_attention(query, key, value)
        return x + self.project_out(rearrange(mixed, "b 1 (h w) c -> b c h w", h=x.shape[-2]))


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
        layers += [AttentionBlock(width) for _ in range(config.attention)]
        to_features = nn.Conv2d(width, features, 1)
        layers += [nn.GroupNorm(1, width), nn.ReLU(), to_features]
        with torch.no_grad():
            to_features.weight.mul_(feature_gain)
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c g g"]:
        maps = self.layers((2 * images - 1).contiguous(memory_format=torch.channels_last))
        return maps.float()  # Logits and rounding need more than autocast's bf16.


class ChannelNorm(nn.Module):
    """Root-mean-square normalization of each position."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * x.square().mean(dim=1, keepdim=True).add(1e-6).rsqrt()


class PatchBlock(nn.Module):
    """x + f(x) with two 1×1 convolutions, which do not mix positions."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = ChannelNorm()
        self.inner = nn.Conv2d(width, 2 * width, 1)
        self.outer = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.outer(F.relu(self.inner(self.norm(x))))


class PatchEncoder(nn.Module):
    """Images in [0, 1] to features of each patch, none of which sees another patch.

    With a convolutional encoder a code also depends on neighboring patches. Reconstructions gain a
    little, but equal patches then have different codes, which a transformer has to learn.
    """

    def __init__(self, config: AutoencoderConfig, features: int, feature_gain: float = 1.0):
        super().__init__()
        width = 4 * config.width
        to_features = nn.Conv2d(width, features, 1)
        with torch.no_grad():
            to_features.weight.mul_(feature_gain)
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(config.downsampling),
            nn.Conv2d(3 * config.downsampling**2, width, 1),
            *(PatchBlock(width) for _ in range(config.blocks)),
            ChannelNorm(),
            to_features,
        )

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c g g"]:
        maps = self.layers((2 * images - 1).contiguous(memory_format=torch.channels_last))
        return maps.float()


ENCODERS: dict[str, type[Encoder] | type[PatchEncoder]] = {
    "convolutions": Encoder,
    "patches": PatchEncoder,
}


class Decoder(nn.Module):
    """Latents on the code grid to maps at full resolution."""

    def __init__(self, config: AutoencoderConfig, latents: int, maps: int):
        super().__init__()
        widths = config.widths()
        depth = max(1, config.blocks * len(widths))
        layers: list[nn.Module] = [nn.Conv2d(latents, widths[-1], 3, padding=1)]
        layers += [AttentionBlock(widths[-1]) for _ in range(config.attention)]
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

    @property
    def last_weight(self) -> Tensor:
        """Weights of the last convolution, at which VQGAN balances its losses."""
        layer = self.layers[-2]
        assert isinstance(layer, nn.Conv2d)
        return layer.weight

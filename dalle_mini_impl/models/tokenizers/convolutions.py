"""The convolutional encoder and decoder.

Convolutions run channels-last after a space-to-depth stem, so little work is done at full
resolution; this makes them fast on a CPU.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dalle_mini_impl.models.tokenizers.autoencoder_configs import ConvolutionsConfig


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

    def __init__(
        self, config: ConvolutionsConfig, downsampling: int, features: int, feature_gain: float
    ):
        super().__init__()
        widths = config.widths(downsampling)
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


class Decoder(nn.Module):
    """Latents on the code grid to maps at full resolution."""

    def __init__(self, config: ConvolutionsConfig, downsampling: int, latents: int, maps: int):
        super().__init__()
        widths = config.widths(downsampling)
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

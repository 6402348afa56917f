"""The palette tokenizer's encoder and decoder: a patch as a pattern, and the colors that fill it.

As in an indexed image, a pattern says which of a few colors each pixel has. Pattern and colors are
coded separately. A shape and a color that training never showed together still have known codes,
and a transformer that predicts one factor after the other can combine them.
"""

from collections.abc import Sequence
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dalle_mini_impl.kernels.full_precision import full_precision
from dalle_mini_impl.models.tokenizers.autoencoder_configs import PaletteConfig


class UnitNorm(nn.Module):
    """Root-mean-square normalization without a gain."""

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        return F.rms_norm(x, x.shape[-1:], eps=1e-6)


class PaletteBlock(nn.Module):
    """x + f(x) with two linear layers."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = UnitNorm()
        self.inner = nn.Linear(width, 2 * width)
        self.outer = nn.Linear(2 * width, width)

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        return x + self.outer(F.relu(self.inner(self.norm(x))))


def perceptron(inputs: int, width: int, blocks: int, outputs: int) -> nn.Sequential:
    """Residual blocks between two linear layers."""
    inside = (PaletteBlock(width) for _ in range(blocks))
    return nn.Sequential(nn.Linear(inputs, width), *inside, UnitNorm(), nn.Linear(width, outputs))


class PaletteEncoder(nn.Module):
    """Images in [0, 1] to the features of each patch: its pattern's, then each color's.

    The pattern must not depend on the colors, so in training it is computed from patches whose
    colors are mixed by a random matrix, another for each patch.
    """

    def __init__(
        self, config: PaletteConfig, side: int, features: Sequence[int], feature_gain: float
    ):
        super().__init__()
        self.side = side
        values = 3 * side**2
        pattern, *colors = features
        self.pattern = perceptron(values, config.width, config.blocks, pattern)
        self.palette = perceptron(values, config.width, config.blocks, sum(colors))
        with torch.no_grad():
            for part in (self.pattern, self.palette):
                cast(nn.Linear, part[-1]).weight.mul_(feature_gain)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c g g"]:
        patches = rearrange(
            2 * images - 1, "b c (h p) (w q) -> b h w c (p q)", p=self.side, q=self.side
        )
        mixed = patches
        if self.training:
            mixing = F.normalize(torch.randn(*patches.shape[:3], 3, 3, device=images.device), dim=4)
            with full_precision(images.device):
                mixed = mixing @ patches
        # Normalizing mean and contrast removes most of what is left of the colors.
        mixed = mixed - mixed.mean(dim=4, keepdim=True)
        contrast = mixed.square().mean(dim=(3, 4), keepdim=True).add(1e-3).sqrt()
        pattern = self.pattern((mixed / contrast).flatten(3)).float()
        palette = self.palette(patches.flatten(3)).float()
        return torch.cat((pattern, palette), dim=3).movedim(3, 1)


class PaletteDecoder(nn.Module):
    """Latents to maps centered on mid-gray: every pixel a mixture of its patch's colors."""

    def __init__(self, config: PaletteConfig, side: int, latents: Sequence[int], maps: int):
        super().__init__()
        self.side, self.colors = side, config.colors
        self.channels = list(latents)
        self.shares = perceptron(
            self.channels[0], config.width, config.blocks, self.colors * self.side**2
        )
        # All colors have the same channels, so one network reads each of them.
        self.color = perceptron(self.channels[1], max(16, config.width // 2), 1, maps)

    def forward(self, latents: Float[Tensor, "b d g g"]) -> Float[Tensor, "b m h w"]:
        pattern, *palette = latents.movedim(1, 3).split(self.channels, dim=3)
        shares = rearrange(
            self.shares(pattern).float(), "b h w (k p) -> b h w k p", k=self.colors
        ).softmax(dim=3)
        colors = torch.stack([self.color(color).float().tanh() for color in palette], dim=4)
        with full_precision(latents.device):
            patches = colors @ shares
        return rearrange(patches, "b h w c (p q) -> b c (h p) (w q)", p=self.side, q=self.side)

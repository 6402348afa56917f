"""An encoder whose codes depend on their patch and a margin; the decoder is convolutional."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dalle_mini_impl.models.tokenizers.autoencoder_configs import PatchesConfig


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
    """Images in [0, 1] to features of each patch, which see `margin` pixels around it and no more.

    With the convolutional encoder a code depends on much of the image. Reconstructions gain a
    little, but what looks equal then has different codes, and a transformer has to learn how.
    """

    def __init__(
        self, config: PatchesConfig, downsampling: int, features: int, feature_gain: float
    ):
        super().__init__()
        width, ratio = 2 * config.width, downsampling // config.patch
        reach = config.margin // config.patch
        to_features = nn.Conv2d(width, features, 1)
        with torch.no_grad():
            to_features.weight.mul_(feature_gain)
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(config.patch),
            nn.ReplicationPad2d(reach),
            nn.Conv2d(3 * config.patch**2, config.width, 1 + 2 * reach),
            nn.ReLU(),
            nn.Conv2d(config.width, width, ratio, stride=ratio),
            *(PatchBlock(width) for _ in range(config.blocks)),
            ChannelNorm(),
            to_features,
        )

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c g g"]:
        maps = self.layers((2 * images - 1).contiguous(memory_format=torch.channels_last))
        return maps.float()

"""The small convolutional network whose feature maps a perceptual loss compares."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dalle_mini_impl.models.tokenizers.configs import PerceptualConfig


class PerceptualNetwork(nn.Module):
    """Images in [0, 1] of any side to feature maps, from fine to coarse."""

    def __init__(self, config: PerceptualConfig):
        super().__init__()
        stages, before = [], 3
        for stage in range(config.stages):
            width = config.width * 2**stage
            stages.append(
                nn.Sequential(
                    nn.Conv2d(before, width, 3, padding=1),
                    nn.GroupNorm(8, width),
                    nn.GELU(),
                    nn.Conv2d(width, width, 3, padding=1),
                )
            )
            before = width
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """A map of each stage, `b c h w`, each at half the side of the one before."""
        maps: list[Tensor] = []
        x = images * 2 - 1
        for stage in self.stages:
            x = stage(F.avg_pool2d(F.gelu(x), 2) if maps else x)
            maps.append(x)
        return maps

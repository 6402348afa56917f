"""A decoder and a score that need no model: latents are colors, the score is how red they are."""

import torch

from dalle_mini_impl.vqgan_clip.config import OptimizeConfig
from dalle_mini_impl.vqgan_clip.cutouts import CutoutsConfig

QUICK = OptimizeConfig(steps=20, held_out=0, cutouts=CutoutsConfig(count=4, chunk=2))
STILL = CutoutsConfig(count=1, whole=1.0, perspective=0.0, color=0.0, noise=0.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def decode(latents):
    """Three latent channels are the colors of an image of four times the side."""
    return torch.nn.functional.interpolate(latents.sigmoid(), scale_factor=4)


def redness(pixels):
    return (pixels[:, 0] - pixels[:, 1:].mean(dim=1)).mean(dim=(1, 2))


def start(rows: int = 1):
    return torch.randn(rows, 3, 4, 4, generator=seeded(3))

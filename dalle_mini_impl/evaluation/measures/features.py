"""Feature functions for comparing sets of images, each with a name for reports."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dalle_mini_impl.config import load_function
from dalle_mini_impl.models.clip import Clip

ROWS = 128
"""Images given to a network at a time."""


@dataclass(frozen=True)
class Features:
    """A function from images in [0, 1] to vectors, and what to call it in reports."""

    name: str
    function: Callable[[Tensor], Tensor]

    @torch.inference_mode()
    def __call__(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Features on the CPU, computed a few images at a time."""
        parts = [self.function(part).float().flatten(1).cpu() for part in images.split(ROWS)]
        return torch.cat(parts)


def clip_features(clip: Clip, device: torch.device) -> Features:
    """Image embeddings of the run's own CLIP."""
    name = f"image embeddings of the run's CLIP ({clip.config.embedding} values, unit length)"
    return Features(name, lambda images: clip.encode_image(images.to(device)))


def pixel_features(side: int) -> Features:
    """Pixels averaged down to side × side: no network at all."""
    return Features(
        f"pixels averaged to {side} × {side}",
        lambda images: F.adaptive_avg_pool2d(images, min(side, images.shape[-1])),
    )


def local_features(reference: str) -> Features:
    """A function of the user's, named as MODULE:FUNCTION: images `b 3 h w` to features.

    Raises ConfigError where there is no such function.
    """
    return Features(reference, load_function(reference, "--features"))

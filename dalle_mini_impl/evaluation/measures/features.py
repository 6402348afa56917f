"""Feature functions for comparing sets of images, each with a name for reports."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dalle_mini_impl.config import load_function
from dalle_mini_impl.data.augment import load_images
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.store import Store
from dalle_mini_impl.kernels.chunks import in_chunks
from dalle_mini_impl.models.clip import Clip

LOADED = 128
"""Images that are in memory at a time, if they are loaded from a store."""


@dataclass(frozen=True)
class StoredImages:
    """Images of a store as the models see them, loaded when they are asked for."""

    store: Store
    rows: Sequence[int]
    data: DataConfig

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, wanted: slice) -> Float[Tensor, "n 3 h w"]:
        return load_images(self.store, np.array(self.rows[wanted], np.int64), self.data, None)


Images = Tensor | StoredImages
"""Images in [0, 1], `n 3 h w`."""


@dataclass(frozen=True)
class Features:
    """A function from images in [0, 1] to vectors, and what to call it in reports."""

    name: str
    function: Callable[[Tensor], Tensor]

    @torch.inference_mode()
    def __call__(self, images: Images) -> Float[Tensor, "n d"]:
        """Features on the CPU, computed a few images at a time."""
        starts = range(0, max(len(images), 1), LOADED)
        return torch.cat([in_chunks(self._flat, images[at : at + LOADED]) for at in starts])

    def _flat(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        return self.function(images).float().flatten(1).cpu()


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

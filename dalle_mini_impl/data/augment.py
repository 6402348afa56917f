"""Loads stored images as tensors, with random crops, shifts and flips as configured."""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from dalle_mini_impl.data.config import DataConfig


@runtime_checkable
class ImageStore(Protocol):
    """The part of a store that batches need."""

    @property
    def images(self) -> UInt8[np.ndarray, "n h w 3"]: ...

    def __len__(self) -> int: ...


def load_images(
    store: ImageStore,
    indices: Int64[np.ndarray, "b"],
    config: DataConfig,
    rng: np.random.Generator | None,
) -> Float[Tensor, "b 3 h w"]:
    """The images `indices` in [0, 1], augmented as configured or, without `rng`, not at all.

    Random crops keep between `random_resized_crop` and all of the area, at an aspect ratio
    between 3/4 and 4/3.
    """
    stored = torch.from_numpy(store.images[indices])
    if rng is None or config.random_resized_crop is None:
        images = _scaled(stored, config.image_size)
    else:
        crops = [_random_crop(image, config.random_resized_crop, rng) for image in stored]
        images = torch.cat([_scaled(crop[None], config.image_size) for crop in crops])
    if rng is not None and config.random_shift:
        images = _shifted(images, config.random_shift, rng)
    if rng is not None and config.horizontal_flip:
        flipped = torch.from_numpy(rng.random(len(indices)) < 0.5)
        images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
    return images


def _scaled(images: UInt8[Tensor, "b h w 3"], size: int) -> Float[Tensor, "b 3 size size"]:
    pixels = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    pixels = pixels / 255
    if pixels.shape[2:] == (size, size):
        return pixels
    return F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)


def _shifted(
    images: Float[Tensor, "b 3 h w"], most: int, rng: np.random.Generator
) -> Float[Tensor, "b 3 h w"]:
    height, width = images.shape[2:]
    offsets = torch.from_numpy(rng.integers(-most, most, size=(2, len(images), 1), endpoint=True))
    rows = (torch.arange(height) + offsets[0]).clamp(0, height - 1)
    columns = (torch.arange(width) + offsets[1]).clamp(0, width - 1)
    image = torch.arange(len(images))[:, None, None]
    shifted = images.movedim(1, -1)[image, rows[:, :, None], columns[:, None, :]]
    return shifted.movedim(-1, 1).contiguous()


def _random_crop(
    image: UInt8[Tensor, "h w 3"], smallest: float, rng: np.random.Generator
) -> UInt8[Tensor, "y x 3"]:
    height, width = image.shape[:2]
    area = rng.uniform(smallest, 1.0)
    aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    y = min(height, round(height * np.sqrt(area / aspect)))
    x = min(width, round(width * np.sqrt(area * aspect)))
    top, left = rng.integers(height - y + 1), rng.integers(width - x + 1)
    return image[top : top + y, left : left + x]

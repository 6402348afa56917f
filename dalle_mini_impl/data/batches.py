"""Batches as pure functions of the step, so that resuming needs only the step's number."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from dalle_mini_impl.data.augment import ImageStore, load_images
from dalle_mini_impl.data.caption_table import CaptionTable
from dalle_mini_impl.data.codes import CodeCache
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.negatives import Negative


@dataclass(frozen=True)
class ImageBatch:
    """Images (pixels in [0, 1]) with a caption each and, where configured, hard negatives."""

    images: Float[Tensor, "b 3 h w"]
    captions: Int[Tensor, "b t"]
    negatives: Int[Tensor, "b m t"] | None = None
    """Captions with one wrong attribute; the null caption where none can be made."""
    groups: Int[Tensor, "b"] | None = None
    """Equal for images with the same set of captions, such as those of one label."""
    texts: Int[Tensor, "b"] | None = None
    """Equal for equal captions, however BPE-dropout tokenized them."""


@dataclass(frozen=True)
class CodeBatch:
    """Codes of images (row-major over the grid) with a caption each."""

    codes: Int[Tensor, "b n"]
    captions: Int[Tensor, "b t"]


@lru_cache(maxsize=8)
def _permutation(n: int, seed: int, epoch: int) -> Int64[np.ndarray, "n"]:
    return np.random.default_rng((seed % 2**63, epoch)).permutation(n).astype(np.int64)


def step_rng(seed: int, step: int, rank: int) -> np.random.Generator:
    """The random generator of one batch."""
    return np.random.default_rng((seed % 2**63, step, rank))


@dataclass(frozen=True)
class BatchOrder:
    """Which images one of `world` processes takes at each step, and its random numbers."""

    batch_size: int
    seed: int = 0
    rank: int = 0
    world: int = 1

    def indices(self, n: int, step: int) -> Int64[np.ndarray, "batch_size"]:
        """Indices of the batch at `step` among `n` images.

        Each epoch is a permutation. Ranks take consecutive slices of the concatenated epochs, so
        every n indices contain every image once, across ranks and epoch ends.
        """
        if n < 1:
            raise ValueError("there are no images to make batches of")
        position = (step * self.world + self.rank) * self.batch_size
        remaining, slices = self.batch_size, []
        while remaining > 0:
            epoch, offset = divmod(position, n)
            slices.append(_permutation(n, self.seed, epoch)[offset : offset + remaining])
            remaining -= len(slices[-1])
            position += len(slices[-1])
        return np.concatenate(slices)

    def rng(self, step: int) -> np.random.Generator:
        return step_rng(self.seed, step, self.rank)


class ImageBatches:
    """Batches of images with captions, augmented as configured; call with a step."""

    def __init__(
        self,
        store: ImageStore,
        table: CaptionTable,
        config: DataConfig,
        order: BatchOrder,
        negative: Negative | None = None,
        negatives: int = 0,
    ) -> None:
        if len(store) != len(table):
            raise ValueError(f"{len(store)} images but captions for {len(table)}")
        self.store, self.table, self.config, self.order = store, table, config, order
        self.negative, self.negatives = negative, negatives

    def __call__(self, step: int) -> ImageBatch:
        indices, rng = self.order.indices(len(self.store), step), self.order.rng(step)
        images = load_images(self.store, indices, self.config, rng)
        numbers = self.table.choose(indices, rng)
        wrong = None
        if self.negative is not None and self.negatives:
            wrong = self.table.negatives(indices, numbers, self.negative, self.negatives, rng)
        captions, groups = self.table.ids(indices, numbers, rng), self.table.groups(indices)
        texts = torch.from_numpy(self.table.texts(indices, numbers))
        return ImageBatch(images, captions, wrong, groups, texts)


class CodeBatches:
    """Batches of cached codes with captions, a random variant of each image; call with a step."""

    def __init__(self, cache: CodeCache, table: CaptionTable, order: BatchOrder) -> None:
        if cache.codes.shape[1] != len(table):
            raise ValueError(f"codes of {cache.codes.shape[1]} images, captions of {len(table)}")
        self.cache, self.table, self.order = cache, table, order

    def __call__(self, step: int) -> CodeBatch:
        indices = self.order.indices(self.cache.codes.shape[1], step)
        rng = self.order.rng(step)
        variants = rng.integers(len(self.cache.codes), size=len(indices))
        codes = self.cache.codes[variants, indices].astype(np.int64)
        return CodeBatch(torch.from_numpy(codes), self.table.random_ids(indices, rng))

"""Batches as pure functions of the step, so that resuming needs only the step's number."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from dalle_mini_impl.data.augment import Augmentation, ImageStore, load_images
from dalle_mini_impl.data.caption_table import CaptionTable
from dalle_mini_impl.data.codes import CodeCache
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


def batch_indices(
    n: int, batch_size: int, step: int, seed: int, rank: int = 0, world: int = 1
) -> Int64[np.ndarray, "batch_size"]:
    """Indices of `rank`'s batch at `step`: a pure function of its arguments.

    Each epoch is a permutation. Ranks take consecutive slices of the concatenated epochs, so every
    n indices contain every image once, across ranks and epoch ends.
    """
    if n < 1:
        raise ValueError("there are no images to make batches of")
    position = (step * world + rank) * batch_size
    remaining, slices = batch_size, []
    while remaining > 0:
        epoch, offset = divmod(position, n)
        slices.append(_permutation(n, seed, epoch)[offset : offset + remaining])
        remaining -= len(slices[-1])
        position += len(slices[-1])
    return np.concatenate(slices)


def step_rng(seed: int, step: int, rank: int) -> np.random.Generator:
    """The random generator of one batch."""
    return np.random.default_rng((seed % 2**63, step, rank))


class ImageBatches:
    """Batches of images with captions, augmented as configured; call with a step."""

    def __init__(
        self,
        store: ImageStore,
        table: CaptionTable,
        config: Augmentation,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        negative: Negative | None = None,
        negatives: int = 0,
    ) -> None:
        if len(store) != len(table):
            raise ValueError(f"{len(store)} images but captions for {len(table)}")
        self.store, self.table, self.config = store, table, config
        self.batch_size, self.seed, self.rank, self.world = batch_size, seed, rank, world
        self.negative, self.negatives = negative, negatives

    def __call__(self, step: int) -> ImageBatch:
        indices = batch_indices(
            len(self.store), self.batch_size, step, self.seed, self.rank, self.world
        )
        rng = step_rng(self.seed, step, self.rank)
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

    def __init__(
        self,
        cache: CodeCache,
        table: CaptionTable,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if cache.codes.shape[1] != len(table):
            raise ValueError(f"codes of {cache.codes.shape[1]} images, captions of {len(table)}")
        self.cache, self.table = cache, table
        self.batch_size, self.seed, self.rank, self.world = batch_size, seed, rank, world

    def __call__(self, step: int) -> CodeBatch:
        n = self.cache.codes.shape[1]
        indices = batch_indices(n, self.batch_size, step, self.seed, self.rank, self.world)
        rng = step_rng(self.seed, step, self.rank)
        variants = rng.integers(len(self.cache.codes), size=len(indices))
        codes = self.cache.codes[variants, indices].astype(np.int64)
        return CodeBatch(
            codes=torch.from_numpy(codes), captions=self.table.random_ids(indices, rng)
        )

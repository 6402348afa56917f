"""Batches as pure functions of the step, so that resuming needs nothing but the step's number."""

import queue
import random
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from dalle_mini_impl.data.codes import CodeCache
from dalle_mini_impl.data.negatives import Negative

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class ImageBatch:
    """Images (pixels in [0, 1]) with a caption each and, where asked for, wrong ones."""

    images: Float[Tensor, "b 3 h w"]
    captions: Int[Tensor, "b t"]
    negatives: Int[Tensor, "b m t"] | None = None
    """Captions that are wrong by one attribute; the null caption where none can be made."""
    groups: Int[Tensor, "b"] | None = None
    """Equal for images that have the same captions to draw from, such as those of one label."""
    texts: Int[Tensor, "b"] | None = None
    """Equal for equal captions, however BPE-dropout cut them into tokens."""


@dataclass(frozen=True)
class CodeBatch:
    """Codes of images (row-major over the grid) with a caption each."""

    codes: Int[Tensor, "b n"]
    captions: Int[Tensor, "b t"]


@runtime_checkable
class Encoder(Protocol):
    """What a caption table needs of a caption tokenizer."""

    def encode(
        self, captions: Sequence[str], rng: np.random.Generator | None = None
    ) -> np.ndarray: ...


class CaptionTable:
    """Captions of each image, the different ones among them encoded once.

    With `dropout` each draw is encoded anew with BPE-dropout. An image without captions has the
    null caption.
    """

    def __init__(
        self, captions: Sequence[Sequence[str]], tokenizer: Encoder, dropout: bool = False
    ) -> None:
        rows = [tuple(of_image) or ("",) for of_image in captions]
        self._numbers: dict[str, int] = {}
        flat = [self._numbers.setdefault(text, len(self._numbers)) for row in rows for text in row]
        self._flat = np.array(flat, np.int64)
        self._counts = np.array([len(row) for row in rows], np.int64)
        self._starts = np.cumsum(self._counts) - self._counts
        self._texts = list(self._numbers)
        known: dict[tuple[str, ...], int] = {}
        self._groups = np.array([known.setdefault(row, len(known)) for row in rows], np.int64)
        self._tokenizer = tokenizer
        self._dropout = dropout
        # Kept narrow: a million captions of 64 ids are 256 MB as int32.
        encoded = tokenizer.encode(self._texts) if self._texts else np.zeros((0, 0))
        self._ids = np.asarray(encoded, np.int32)

    def __len__(self) -> int:
        return len(self._counts)

    def draw(self, indices: Int64[np.ndarray, "b"], rng: np.random.Generator) -> Int[Tensor, "b t"]:
        """Ids (int64) of a random caption of each of the images `indices`."""
        return self.ids(indices, self.choose(indices, rng), rng)

    def choose(
        self, indices: Int64[np.ndarray, "b"], rng: np.random.Generator
    ) -> Int64[np.ndarray, "b"]:
        """The number of a random caption among each image's own."""
        return rng.integers(self._counts[indices])

    def ids(
        self,
        indices: Int64[np.ndarray, "b"],
        numbers: Int64[np.ndarray, "b"],
        rng: np.random.Generator,
    ) -> Int[Tensor, "b t"]:
        """Ids (int64) of caption `numbers[i]` of image `indices[i]`."""
        chosen = self.texts(indices, numbers)
        if self._dropout:
            ids = self._tokenizer.encode([self._texts[i] for i in chosen], rng)
        else:
            ids = self._ids[chosen]
        return torch.from_numpy(ids.astype(np.int64))

    def texts(
        self, indices: Int64[np.ndarray, "b"], numbers: Int64[np.ndarray, "b"]
    ) -> Int64[np.ndarray, "b"]:
        """A number for caption `numbers[i]` of image `indices[i]`, shared by equal captions."""
        return self._flat[self._starts[indices] + numbers]

    def groups(self, indices: Int64[np.ndarray, "b"]) -> Int[Tensor, "b"]:
        """A number for each image, shared by those with the same captions."""
        return torch.from_numpy(self._groups[indices])

    def negatives(
        self,
        indices: Int64[np.ndarray, "b"],
        numbers: Int64[np.ndarray, "b"],
        negative: Negative,
        count: int,
        rng: np.random.Generator,
    ) -> Int[Tensor, "b m t"]:
        """Ids of `count` wrong captions for each of the captions that `ids` names."""
        texts = [
            negative(int(index), int(number), random.Random(int(seed))) or ""
            for index, number, seeds in zip(
                indices, numbers, rng.integers(2**32, size=(len(indices), count)), strict=True
            )
            for seed in seeds
        ]
        # As the true captions are encoded: how a text is cut into tokens must not give it away.
        ids = self._tokenizer.encode(texts, rng if self._dropout else None).astype(np.int64)
        return torch.from_numpy(ids.reshape(len(indices), count, -1))


@lru_cache(maxsize=8)
def _permutation(n: int, seed: int, epoch: int) -> Int64[np.ndarray, "n"]:
    return np.random.default_rng((seed % 2**63, epoch)).permutation(n).astype(np.int64)


def batch_indices(
    n: int, batch_size: int, step: int, seed: int, rank: int = 0, world: int = 1
) -> Int64[np.ndarray, "batch_size"]:
    """Indices of `rank`'s batch at `step`: a pure function of its arguments.

    The permutations of all epochs follow one another without a gap and the ranks take consecutive
    slices of them, so every n draws show every image once, across ranks and epoch ends.
    """
    if n < 1:
        raise ValueError("there are no images to draw batches from")
    position = (step * world + rank) * batch_size
    left, parts = batch_size, []
    while left > 0:
        epoch, offset = divmod(position, n)
        parts.append(_permutation(n, seed, epoch)[offset : offset + left])
        left -= len(parts[-1])
        position += len(parts[-1])
    return np.concatenate(parts)


def step_rng(seed: int, step: int, rank: int) -> np.random.Generator:
    """The generator of everything random about one batch."""
    return np.random.default_rng((seed % 2**63, step, rank))


@runtime_checkable
class Images(Protocol):
    """What batches need of a store."""

    @property
    def images(self) -> UInt8[np.ndarray, "n h w 3"]: ...

    def __len__(self) -> int: ...


@runtime_checkable
class Augmentation(Protocol):
    """What batches need of the data configuration."""

    @property
    def image_size(self) -> int: ...

    @property
    def random_resized_crop(self) -> float | None: ...

    @property
    def horizontal_flip(self) -> bool: ...


class ImageBatches:
    """Batches of images with captions; call with a step.

    Augmented only where the configuration asks for it: crops keep a random share of the area
    between `random_resized_crop` and 1 at an aspect ratio between 3/4 and 4/3.
    """

    def __init__(
        self,
        store: Images,
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


def load_images(
    store: Images,
    indices: Int64[np.ndarray, "b"],
    config: Augmentation,
    rng: np.random.Generator | None,
) -> Float[Tensor, "b 3 h w"]:
    """The images `indices` in [0, 1], augmented as configured or, without `rng`, not at all."""
    stored = torch.from_numpy(store.images[indices])
    if rng is None or config.random_resized_crop is None:
        images = _scaled(stored, config.image_size)
    else:
        crops = [_random_crop(image, config.random_resized_crop, rng) for image in stored]
        images = torch.cat([_scaled(crop[None], config.image_size) for crop in crops])
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
        return CodeBatch(codes=torch.from_numpy(codes), captions=self.table.draw(indices, rng))


def prefetch(
    batches: Callable[[int], Batch], start: int, count: int, depth: int = 2
) -> Generator[Batch, None, None]:
    """`batches(start)`, `batches(start + 1)`, … `count` of them, made ahead in a thread.

    An error in the thread is raised here; closing the iterator ends the thread.
    """
    ready: queue.Queue[tuple[Batch | None, BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: tuple[Batch | None, BaseException | None]) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for step in range(start, start + count):
                if not put((batches(step), None)):
                    return
        except BaseException as error:
            put((None, error))

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        for _ in range(count):
            batch, error = ready.get()
            if error is not None:
                raise error
            yield batch  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()

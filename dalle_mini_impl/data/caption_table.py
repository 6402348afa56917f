"""The captions of all images as token ids, chosen at random for each batch."""

import random
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor

from dalle_mini_impl.data.negatives import Negative


@runtime_checkable
class CaptionEncoder(Protocol):
    """The part of a caption tokenizer that a caption table needs."""

    def encode(
        self, captions: Sequence[str], rng: np.random.Generator | None = None
    ) -> np.ndarray: ...


class CaptionTable:
    """The captions of each image; every distinct text is encoded once.

    With `dropout`, captions are encoded again with BPE-dropout each time they are chosen. An image
    without captions has the null caption.
    """

    def __init__(
        self, captions: Sequence[Sequence[str]], tokenizer: CaptionEncoder, dropout: bool = False
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
        # int32 halves the memory: a million captions of 64 ids take 256 MB.
        encoded = tokenizer.encode(self._texts) if self._texts else np.zeros((0, 0))
        self._ids = np.asarray(encoded, np.int32)

    def __len__(self) -> int:
        return len(self._counts)

    def random_ids(
        self, indices: Int64[np.ndarray, "b"], rng: np.random.Generator
    ) -> Int[Tensor, "b t"]:
        """Ids (int64) of a random caption of each of the images `indices`."""
        return self.ids(indices, self.choose(indices, rng), rng)

    def choose(
        self, indices: Int64[np.ndarray, "b"], rng: np.random.Generator
    ) -> Int64[np.ndarray, "b"]:
        """The number of a random caption among those of each image."""
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
        """Ids of `count` hard negatives for caption `numbers[i]` of image `indices[i]`."""
        texts = [
            negative(int(index), int(number), random.Random(int(seed))) or ""
            for index, number, seeds in zip(
                indices, numbers, rng.integers(2**32, size=(len(indices), count)), strict=True
            )
            for seed in seeds
        ]
        # Encoded like the true captions, so that the tokenization does not reveal the negatives.
        ids = self._tokenizer.encode(texts, rng if self._dropout else None).astype(np.int64)
        return torch.from_numpy(ids.reshape(len(indices), count, -1))

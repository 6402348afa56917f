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

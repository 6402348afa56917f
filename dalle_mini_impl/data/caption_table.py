"""The captions of all images as token ids, chosen at random for each batch."""

import random
from collections.abc import Hashable, Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor

from dalle_mini_impl.data.negatives import Negative, wrong_captions


@runtime_checkable
class CaptionEncoder(Protocol):
    """The part of a caption tokenizer that a caption table needs."""

    def encode(
        self, captions: Sequence[str], rng: np.random.Generator | None = None
    ) -> np.ndarray: ...


class CaptionTable:
    """The captions of each image; every distinct text is encoded once.

    Captions are equal if their ids are, whatever the texts: ids show no capitals where the
    vocabulary lower-cases, and nothing beyond the context.

    With `dropout`, captions are encoded again with BPE-dropout each time they are chosen. An image
    without captions has the null caption.
    """

    def __init__(
        self, captions: Sequence[Sequence[str]], tokenizer: CaptionEncoder, dropout: bool = False
    ) -> None:
        rows = [tuple(of_image) or ("",) for of_image in captions]
        known: dict[str, int] = {}
        flat = [known.setdefault(text, len(known)) for row in rows for text in row]
        self._flat = np.array(flat, np.int64)
        self._counts = np.array([len(row) for row in rows], np.int64)
        self._starts = np.cumsum(self._counts) - self._counts
        self._texts = list(known)
        self._tokenizer = tokenizer
        self._dropout = dropout
        # int32 halves the memory: a million captions of 64 ids take 256 MB.
        encoded = tokenizer.encode(self._texts) if self._texts else np.zeros((0, 0))
        self._ids = np.asarray(encoded, np.int32)
        self._equal = _numbered(row.tobytes().rstrip(b"\0") for row in self._ids)[self._flat]
        ends = zip(self._starts, self._starts + self._counts, strict=True)
        self._groups = _numbered(frozenset(self._equal[start:end].tolist()) for start, end in ends)

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
        chosen = self._flat[self._starts[indices] + numbers]
        if self._dropout:
            ids = self._tokenizer.encode([self._texts[i] for i in chosen], rng)
        else:
            ids = self._ids[chosen]
        return torch.from_numpy(ids.astype(np.int64))

    def texts(
        self, indices: Int64[np.ndarray, "b"], numbers: Int64[np.ndarray, "b"]
    ) -> Int64[np.ndarray, "b"]:
        """A number for caption `numbers[i]` of image `indices[i]`, shared by equal captions."""
        return self._equal[self._starts[indices] + numbers]

    def own_ids(self, image: int) -> Int[np.ndarray, "k t"]:
        """The ids of all captions of an image."""
        start = self._starts[image]
        return self._ids[self._flat[start : start + self._counts[image]]]

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
        seeds = rng.integers(2**32, size=(len(indices), count))
        rngs = [random.Random(int(seed)) for seed in seeds.flat]
        each = zip(indices.repeat(count).tolist(), numbers.repeat(count).tolist(), strict=True)
        encode = self._tokenizer.encode
        texts, ids = wrong_captions(negative, list(each), rngs, encode, self.own_ids)
        if self._dropout:
            # Like the true captions, so that the tokenization does not reveal the negatives.
            ids = encode(texts, rng)
        return torch.from_numpy(ids.astype(np.int64).reshape(len(indices), count, -1))


def _numbered(keys: Iterable[Hashable]) -> Int64[np.ndarray, "n"]:
    """A number for each key, shared by equal ones."""
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(key, len(known)) for key in keys], np.int64)

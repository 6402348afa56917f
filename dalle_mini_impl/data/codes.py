"""The cache of image codes: every image encoded once, memory-mapped, never used when stale.

A key records what the codes were computed from. It is written last and removed first, so an
interrupted write never leaves a cache that looks complete.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, Integer

from dalle_mini_impl.files import (
    atomic_write,
    file_digest,
    remove_parts,
    temporary_path,
    write_text,
)
from dalle_mini_impl.runs.os_errors import naming

MAX_CODES = 2**31
"""Different codes at most: they are stored in 32 bits, and their use is counted code by code."""


@dataclass(frozen=True)
class CodeKey:
    """What the codes depend on; a cache with any other key is stale."""

    weights: str
    """Hash of the image tokenizer's weights."""
    data: str
    """Fingerprint of the images."""
    variants: int
    """Encodings of each image."""
    images: int
    """Number of images."""
    differ_by: str = ""
    """What the variants after the first differ by, such as crops."""


@dataclass(frozen=True)
class CodeCache:
    """Codes of all images in all variants."""

    codes: Integer[np.ndarray, "variants images tokens"]
    """Memory-mapped, row-major over the grid."""
    key: CodeKey

    @classmethod
    def open(cls, folder: Path, key: CodeKey) -> "CodeCache | None":
        """The cache in `folder`; None if it is missing, damaged or made from other inputs."""
        cache = cls._read(folder)
        return cache if cache is not None and cache.key == key else None

    @classmethod
    def of_weights(cls, folder: Path, weights: str) -> "CodeCache | None":
        """The cache in `folder` if the image tokenizer of these weights made it, else None."""
        cache = cls._read(folder)
        return cache if cache is not None and cache.key.weights == weights else None

    @classmethod
    def _read(cls, folder: Path) -> "CodeCache | None":
        try:
            noted = json.loads((folder / "codes.json").read_text(encoding="utf-8"))
            if noted.pop("digest") != file_digest(folder / "codes.npy"):
                return None
            key = CodeKey(**noted)
            codes = np.load(folder / "codes.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return cls(codes, key) if codes.shape[:2] == (key.variants, key.images) else None

    @classmethod
    def write(
        cls, folder: Path, key: CodeKey, chunks: Iterable[Integer[np.ndarray, "b tokens"]]
    ) -> "CodeCache":
        """Write the codes of all images of the first variant in order, then of the next.

        Stored as uint16 where that is enough. ValueError if `chunks` are too few or too many, or
        hold a code from MAX_CODES on.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "codes.json").unlink(missing_ok=True)
        remove_parts(folder / "codes.flat")
        flat = temporary_path(folder / "codes.flat")
        total, end = key.variants * key.images, 0
        codes: np.memmap | None = None
        try:
            for chunk in chunks:
                if codes is None:
                    with naming(folder / "codes.npy", flat):
                        codes = _new_map(flat, np.dtype(np.int32), (total, chunk.shape[1]))
                start, end = end, end + len(chunk)
                if end > total:
                    break
                if chunk.max(initial=0) >= MAX_CODES:
                    raise ValueError(f"code {chunk.max():,} is too large: {MAX_CODES:,} fit")
                codes[start:end] = chunk
            if codes is None or end != total:
                raise ValueError(f"{end} images were encoded, but {total} were expected")
            _finish(codes, folder / "codes.npy", key)
        finally:
            flat.unlink(missing_ok=True)
        digest = file_digest(folder / "codes.npy")
        write_text(folder / "codes.json", json.dumps(asdict(key) | {"digest": digest}))
        cache = cls.open(folder, key)
        if cache is None:
            raise ValueError(f"{folder}: the code cache could not be read back; is the disk full?")
        return cache

    def histogram(self) -> tuple[Int[np.ndarray, "k"], Int[np.ndarray, "k"]]:
        """The codes that occur and how often each does, in all variants together."""
        parts = [np.unique(variant, return_counts=True) for variant in self.codes]
        values, inverse = np.unique(np.concatenate([v for v, _ in parts]), return_inverse=True)
        counts = np.bincount(inverse, weights=np.concatenate([count for _, count in parts]))
        return values.astype(np.int64), counts.astype(np.int64)


def _finish(codes: np.ndarray, path: Path, key: CodeKey) -> None:
    """Store the flat `codes` at `path` by variant, in the narrowest integers that hold them."""
    narrow = np.dtype(np.uint16 if codes.max(initial=0) < 2**16 else np.int32)
    shape = (key.variants, key.images, codes.shape[1])
    with atomic_write(path) as temporary:
        stored = _new_map(temporary, narrow, shape)
        for variant in range(key.variants):
            stored[variant] = codes[variant * key.images : (variant + 1) * key.images]
        stored.flush()


def _new_map(path: Path, kind: np.dtype, shape: tuple[int, ...]) -> np.memmap:
    """A new memory-mapped array; OSError if the disk has no room for it."""
    array: np.memmap = np.lib.format.open_memmap(path, "w+", kind, shape)
    # Without room, writing into a memory map kills the process instead of raising an error.
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def perplexity(counts: Int[np.ndarray, "k"]) -> float:
    """exp of the entropy of the code frequencies: the number of codes in effective use."""
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(np.exp(-np.sum(shares * np.log(shares))))


def factor_values(
    codes: Integer[np.ndarray, "k"], factors: tuple[int, ...]
) -> list[Integer[np.ndarray, "k"]]:
    """The value of each factor in the codes, the first factor's first."""
    values, rest = [], codes
    for count in factors:
        values.append(rest % count)
        rest = rest // count
    return values


def factor_usage(values: Int[np.ndarray, "k"], factors: tuple[int, ...]) -> float:
    """The share of codes that occur in `values`; of several factors, the mean of each one's."""
    own = zip(factor_values(values, factors), factors, strict=True)
    return float(np.mean([len(np.unique(digits)) / count for digits, count in own]))

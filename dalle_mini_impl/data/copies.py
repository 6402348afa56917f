"""Copies of an image: the same pixels under other names, which must not stand in two splits."""

import hashlib
from collections.abc import Iterable

import numpy as np

from dalle_mini_impl.data.splits import Split

PRECEDING: dict[Split, tuple[Split, ...]] = {
    "held_out": (),
    "validation": ("held_out",),
    "train": ("held_out", "validation"),
}
"""The splits of whose images a split has no copies."""


def digest(pixels: bytes) -> bytes:
    """Equal for equal pixels."""
    return hashlib.blake2b(pixels, digest_size=16).digest()


def digests(images: Iterable[np.ndarray]) -> set[bytes]:
    """Those of many images."""
    return {digest(image.tobytes()) for image in images}


def preceding(split: Split) -> str:
    """The names of the `PRECEDING` splits, for a message."""
    return " or ".join(PRECEDING[split]).replace("_", " ")

"""How alike images are by their codes, and from where on one is a near copy of another."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Integer

NEAR_COPY = 0.8
"""Likeness from which an image is a near copy of another.

Chosen by eye on samples of emoji, scenes and photographs beside their nearest training images: from
here on both show the same thing, below 0.75 often another face, color or place. Of the training
images themselves, 4 % of the emoji, 0.3 % of the scenes and none of the photographs are this near
to another one. By the plain share of equal codes it would be a quarter of the scenes: a circle and
a cross on the same background share nine tenths of their codes.
"""

ROWS = 1024
"""Images compared at a time, so that what is computed on the way stays in the processor's cache."""
COUNTED = 2**22
"""Codes whose frequencies are counted apart; of more, some share theirs."""


class CodeSet:
    """Codes of some images, with which others are compared.

    The likeness of two images is the information of the codes that they share at the same places,
    over that of the richer one. A code of frequency p among these images has -log2 p bits, so a
    background that most images have counts little.
    """

    def __init__(self, codes: Integer[np.ndarray, "n t"]):
        self.codes = codes
        values, counts = np.unique(codes, return_counts=True)
        own = np.zeros(min(int(values[-1]) + 2, COUNTED), np.int64)
        np.add.at(own, values % len(own), counts)
        # Counted as if each had been seen once more: every code has some information.
        self._bits = np.log2((codes.size + 2) / (own + 1)).astype(np.float32)
        self._totals = np.concatenate([self._information(rows).sum(1) for rows in self._parts])

    def likeness(self, codes: Integer[np.ndarray, "t"]) -> Float[np.ndarray, "n"]:
        """How alike an image of these codes is to each of the set: 1 for the same codes."""
        bits = self._information(codes)
        # The set's integers may be too narrow for these codes, which then are none of its own.
        fits = codes <= np.iinfo(self.codes.dtype).max
        own, shared = codes.astype(self.codes.dtype), np.where(fits, bits, np.float32(0))
        equal = np.concatenate([(rows == own) @ shared for rows in self._parts])
        return equal / np.maximum(self._totals, bits.sum())

    @property
    def _parts(self) -> Iterator[np.ndarray]:
        return (self.codes[start : start + ROWS] for start in range(0, len(self.codes), ROWS))

    def _information(self, codes: np.ndarray) -> np.ndarray:
        """The bits of each code."""
        if len(self._bits) < COUNTED:
            # The last one stands for all that the set does not have.
            return self._bits[np.minimum(codes, len(self._bits) - 1)]
        return self._bits[codes % COUNTED]

"""The training images of a run as their codes, with which samples are compared."""

from functools import cached_property

import numpy as np
from jaxtyping import Integer

from dalle_mini_impl.sampling.likeness import NEAR_COPY, CodeSet
from dalle_mini_impl.sampling.record import NearestImage


class TrainingCodes:
    """Codes of training images, in all variants that training saw."""

    def __init__(self, codes: Integer[np.ndarray, "variants images tokens"]):
        self.codes = codes

    @cached_property
    def _set(self) -> CodeSet:
        return CodeSet(self.codes.reshape(-1, self.codes.shape[-1]))

    def nearest(self, codes: Integer[np.ndarray, "tokens"]) -> NearestImage:
        """The training image that an image of these codes is most like."""
        likeness = self._set.likeness(codes)
        at = int(likeness.argmax())
        return NearestImage(
            image=at % self.codes.shape[1],
            likeness=round(float(likeness[at]), 4),
            near_copy=bool(likeness[at] >= NEAR_COPY),
        )

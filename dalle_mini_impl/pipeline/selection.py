"""Which candidates of a caption are shown: the best that differ from each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Integer

from dalle_mini_impl.sampling.config import SamplingConfig
from dalle_mini_impl.sampling.given import Given
from dalle_mini_impl.sampling.likeness import NEAR_COPY, CodeSet
from dalle_mini_impl.sampling.record import NearestImage
from dalle_mini_impl.sampling.samples import Samples
from dalle_mini_impl.sampling.training_codes import TrainingCodes


@dataclass(frozen=True)
class Selected:
    """A candidate that is shown."""

    at: int
    """Its number among the candidates."""
    repeats: int
    """Candidates of a lower rank that are near copies of it."""
    same_as: int | None
    """The better candidate that it is a near copy of; None but where too few differ."""
    nearest: NearestImage | None
    """The nearest training image; None where there are no codes of them."""


def select(
    samples: Samples,
    config: SamplingConfig,
    training: TrainingCodes | None,
    given: Given | None,
    avoid_copies: bool,
) -> list[Selected]:
    """The best `config.num_images` candidates, no two near copies as long as enough differ.

    training: the training images. given: what all candidates have. avoid_copies: near copies of
    training images come last.
    """
    codes, order = samples.codes.cpu().numpy(), samples.order(config.rank_by)

    @cache
    def nearest(at: int) -> NearestImage | None:
        return None if training is None else training.nearest(codes[at])

    def avoided(at: int) -> bool:
        found = nearest(at) if avoid_copies else None
        return found is not None and found.near_copy

    repeats = grouped(_sampled(codes, given), order)
    same_as = {at: better for better, own in repeats.items() for at in own}
    # Where too few differ, near copies of them fill up.
    wanted = sorted(order, key=lambda at: (avoided(at), at in same_as))[: config.num_images]
    wanted.sort(key=lambda at: (avoided(at), order.index(at)))
    return [Selected(at, len(repeats.get(at, [])), same_as.get(at), nearest(at)) for at in wanted]


def grouped(codes: Integer[np.ndarray, "b n"], order: Sequence[int]) -> dict[int, list[int]]:
    """The candidates that differ, best first, each with the worse ones that are near copies."""
    candidates = CodeSet(codes)
    groups: dict[int, list[int]] = {}
    for at in order:
        likeness = candidates.likeness(codes[at])
        better = next((first for first in groups if likeness[first] >= NEAR_COPY), None)
        if better is None:
            groups[at] = []
        else:
            groups[better].append(at)
    return groups


def _sampled(codes: Integer[np.ndarray, "b n"], given: Given | None) -> np.ndarray:
    """The codes that were not given: these alone tell candidates apart."""
    free = np.zeros(0, bool) if given is None else given.codes.cpu().numpy() < 0
    return codes[:, free] if free.any() else codes

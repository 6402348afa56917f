"""Which candidates are shown: different ones, and those that are no training images if asked."""

import numpy as np
import pytest
import torch

from dalle_mini_impl.pipeline.selection import select
from dalle_mini_impl.sampling.config import SamplingConfig
from dalle_mini_impl.sampling.given import Given
from dalle_mini_impl.sampling.samples import Samples
from dalle_mini_impl.sampling.training_codes import TrainingCodes

IMAGES = np.random.default_rng(0).integers(0, 500, (6, 16))
"""Codes of images that differ."""
BEST_LAST = torch.arange(6.0)
TRAINING = TrainingCodes(IMAGES[None, [4, 2]])


def candidates(codes: np.ndarray, scores: torch.Tensor = BEST_LAST) -> Samples:
    own = torch.from_numpy(codes)
    zeros = torch.zeros(len(codes))
    pixels = torch.zeros(len(codes), 3, 8, 8)
    return Samples("", tuple(range(len(codes))), pixels, own, zeros, zeros, scores[: len(codes)])


def selected(codes: np.ndarray, count: int, training=None, given=None, avoid=False) -> list:
    config = SamplingConfig(num_images=count)
    return select(candidates(codes), config, training, given, avoid)


def at(chosen: list) -> list[int]:
    return [candidate.at for candidate in chosen]


def test_different_candidates_are_shown_in_their_order():
    chosen = selected(IMAGES, 4)
    assert at(chosen) == [5, 4, 3, 2]
    assert all((c.repeats, c.same_as, c.nearest) == (0, None, None) for c in chosen)


def test_near_copies_of_better_candidates_give_way():
    codes = IMAGES[[0, 1, 2, 3, 5, 5]]
    codes[3] = codes[5]
    codes[3, 0] = 501  # a near copy, not the same
    chosen = selected(codes, 3)
    assert at(chosen) == [5, 2, 1]
    assert [candidate.repeats for candidate in chosen] == [2, 0, 0]


def test_the_best_image_stays_the_best():
    for _ in range(20):
        codes = IMAGES[np.random.default_rng(_).integers(0, 3, 6)]
        assert at(selected(codes, 4))[0] == 5
        assert at(selected(codes, 1)) == [5]


def test_near_copies_fill_up_where_too_few_differ():
    codes = IMAGES[[0, 1, 1, 1, 1, 1]]
    chosen = selected(codes, 4)
    assert at(chosen) == [5, 4, 3, 0]
    assert [candidate.same_as for candidate in chosen] == [None, 5, 5, None]
    assert [candidate.repeats for candidate in chosen] == [4, 0, 0, 0]
    assert at(selected(codes, 6)) == [5, 4, 3, 2, 1, 0]


def test_training_images_are_found_in_all_variants():
    variants = np.stack([IMAGES[:2], IMAGES[2:4]])
    chosen = selected(IMAGES, 6, TrainingCodes(variants))
    found = {candidate.at: candidate.nearest for candidate in chosen}
    assert [found[row].near_copy for row in range(6)] == [True] * 4 + [False] * 2
    assert [found[row].image for row in range(4)] == [0, 1, 0, 1]
    assert found[3].likeness == 1
    assert found[5].likeness < 0.5


def test_near_copies_of_training_images_are_passed_over_only_if_asked():
    assert at(selected(IMAGES, 3, TRAINING)) == [5, 4, 3]
    assert at(selected(IMAGES, 3, TRAINING, avoid=True)) == [5, 3, 1]
    assert at(selected(IMAGES, 3, avoid=True)) == [5, 4, 3]


def test_near_copies_come_last_where_there_are_not_enough_others():
    assert at(selected(IMAGES, 5, TRAINING, avoid=True)) == [5, 3, 1, 0, 4]
    copies = IMAGES[[4, 2, 4, 2, 4, 2]]
    chosen = selected(copies, 2, TRAINING, avoid=True)
    assert at(chosen) == [5, 4]
    assert all(candidate.nearest.near_copy for candidate in chosen)


@pytest.mark.parametrize("free", [16, 2, 0])
def test_given_codes_do_not_make_candidates_alike(free):
    codes = np.repeat(IMAGES[:1], 6, axis=0)
    codes[:, :free] = IMAGES[:, :free]
    given = torch.from_numpy(np.where(np.arange(16) < free, -1, codes[0]))
    chosen = selected(codes, 4, given=Given(given))
    assert [candidate.repeats for candidate in chosen] == ([0] * 4 if free else [5, 0, 0, 0])

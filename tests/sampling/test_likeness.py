"""Likeness by codes: rare codes count, a common background does not."""

import numpy as np
import pytest

from dalle_mini_impl.sampling.likeness import COUNTED, NEAR_COPY, ROWS, CodeSet

BACKGROUND = 7


def scenes(count: int, objects: int = 6, side: int = 8, seed: int = 0) -> np.ndarray:
    """Codes of scenes: the same background but for a few rare codes in a place of their own."""
    rng = np.random.default_rng(seed)
    codes = np.full((count, side**2), BACKGROUND, np.uint16)
    for row in codes:
        row[rng.permutation(side**2)[:objects]] = rng.integers(10, 500, objects)
    return codes


def test_the_same_codes_are_alike_and_others_are_not():
    codes = np.arange(3 * 16).reshape(3, 16)
    assert CodeSet(codes).likeness(codes[1]) == pytest.approx([0, 1, 0])


def test_a_common_background_makes_no_near_copies():
    codes = scenes(400)
    likeness = CodeSet(codes).likeness(codes[0])
    assert likeness[0] == pytest.approx(1)
    assert (codes[1:] == codes[0]).mean(axis=1).min() > NEAR_COPY
    assert likeness[1:].max() < NEAR_COPY / 2


def test_an_empty_background_is_no_near_copy_of_a_scene_nor_the_reverse():
    codes = scenes(400)
    empty = np.full(64, BACKGROUND, np.uint16)
    assert CodeSet(codes).likeness(empty).max() < NEAR_COPY / 2
    assert CodeSet(np.concatenate([codes, [empty]])).likeness(codes[0])[-1] < NEAR_COPY / 2
    assert CodeSet(np.concatenate([codes, [empty]])).likeness(empty)[-1] == pytest.approx(1)


def test_most_of_a_scene_is_a_near_copy():
    codes = scenes(400, objects=30)
    few, many = codes[5].copy(), codes[5].copy()
    objects = np.flatnonzero(codes[5] != BACKGROUND)
    few[objects[:3]], many[objects[:12]] = 501, 501
    known = CodeSet(codes)
    assert known.likeness(few).argmax() == known.likeness(many).argmax() == 5
    assert known.likeness(few)[5] >= NEAR_COPY > known.likeness(many)[5]


def test_every_image_of_a_large_set_is_compared():
    codes = scenes(2 * ROWS + 3)
    for at in (0, ROWS - 1, ROWS, 2 * ROWS + 2):
        likeness = CodeSet(codes).likeness(codes[at])
        assert likeness.shape == (len(codes),)
        assert likeness.argmax() == at


def test_codes_that_the_sets_integers_cannot_hold_equal_none():
    codes = scenes(20)
    assert CodeSet(codes).likeness(codes[3].astype(np.int64) + 2**16).max() == 0


def test_more_codes_than_are_counted():
    codes = np.random.default_rng(0).integers(0, 2**31 - 1, (50, 16))
    assert codes.max() > COUNTED
    likeness = CodeSet(codes).likeness(codes[3])
    assert likeness[3] == pytest.approx(1)
    assert np.delete(likeness, 3).max() == 0

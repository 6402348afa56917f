"""Intervals of shares."""

import pytest

from dalle_mini_impl.evaluation.measures.intervals import wilson_interval


def test_the_interval_is_wilsons():
    low, high = wilson_interval(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.49, 0.943)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(10, 10)[1] == pytest.approx(1.0)
    assert wilson_interval(0, 50)[0] == 0.0

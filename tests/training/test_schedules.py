"""Learning rates and cosine schedules as closed forms."""

import math

import pytest

from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.training.schedules import cosine, learning_rate


def test_cosine_holds_its_ends_and_is_halfway_in_the_middle():
    assert cosine(0.1, 0.2, 0.6, 1.0, 1 / 16) == 1.0
    assert cosine(0.9, 0.2, 0.6, 1.0, 1 / 16) == 1 / 16
    assert cosine(0.4, 0.2, 0.6, 1.0, 0.0) == pytest.approx(0.5)
    assert cosine(0.5, 0.0, 0.0, 3.0, 2.0) == 2.0


def test_stable_decay_rises_holds_and_falls_linearly():
    config = TrainingConfig(warmup=0.1, decay=0.4, final_learning_rate=0.1)
    points = [0.0, 0.05, 0.1, 0.3, 0.6, 0.8, 1.0]
    found = [learning_rate(config, p) for p in points]
    assert found == pytest.approx([0, 0.5, 1, 1, 1, 0.55, 0.1])


def test_cosine_and_constant_start_after_the_warm_up():
    wave = TrainingConfig(warmup=0.2, schedule="cosine")
    assert learning_rate(wave, 0.1) == pytest.approx(0.5)
    assert learning_rate(wave, 0.2) == 1.0
    assert learning_rate(wave, 0.4) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert learning_rate(wave, 1.0) == 0.0
    flat = TrainingConfig(warmup=0.0, schedule="constant")
    assert [learning_rate(flat, p) for p in (0.0, 0.5, 1.0)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("schedule", ["stable-decay", "cosine", "constant"])
def test_factor_stays_between_nothing_and_the_peak(schedule):
    config = TrainingConfig(schedule=schedule, warmup=0.7, decay=0.9)
    assert all(0 <= learning_rate(config, i / 50) <= 1 for i in range(51))

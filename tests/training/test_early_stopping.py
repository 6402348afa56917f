"""When a run stops early, and how its learning rate falls then."""

import math

import pytest

from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.training.early_stopping import (
    Best,
    Decay,
    current_learning_rate,
    is_better,
    should_stop,
)
from dalle_mini_impl.training.held_out import COST, HeldOut

BEST = Best(step=100, progress=0.1, loss=2.0)


def test_only_a_lower_number_is_better():
    assert is_better(5.0, None)
    assert is_better(1.9, BEST)
    assert not is_better(2.0, BEST)
    assert not is_better(math.nan, None)
    assert not is_better(math.inf, None)


def test_the_run_stops_once_its_patience_is_over():
    assert not should_stop(BEST, 0.34, 0.25)
    assert should_stop(BEST, 0.36, 0.25)
    assert not should_stop(None, 0.9, 0.25)
    assert not should_stop(BEST, 0.99, 0.0)
    assert not should_stop(BEST, 0.99, None)


def test_the_decay_is_short_and_stays_within_the_budget():
    decay = Decay.after(BEST, step=400, progress=0.4)
    assert (decay.start, decay.steps, decay.stopped, decay.resumed) == (400, 40, 0.4, 0.1)
    found = [decay.progress(step, step / 1000) for step in (400, 420, 440)]
    assert found == pytest.approx([0.4, 0.7, 1.0])
    assert Decay.after(BEST, step=980, progress=0.98).steps == 20
    # A clock that runs out ends it before its steps are done.
    assert decay.progress(410, 1.0) == 1.0
    assert Decay(400, 0, 0.4, 0.1).progress(400, 0.4) == 1.0


@pytest.mark.parametrize("schedule", ["stable-decay", "cosine"])
def test_the_learning_rate_falls_from_its_value_at_the_best_step(schedule):
    config = TrainingConfig(schedule=schedule, warmup=0.05, final_learning_rate=0.1)
    decay = Decay(400, 40, 0.4, 0.1)
    then = current_learning_rate(config, 0.1, None)
    rates = [current_learning_rate(config, at, decay) for at in (0.4, 0.7, 1.0)]
    assert rates == pytest.approx([then, (then + 0.1) / 2, 0.1])
    # The objective's schedules go on from there too.
    assert [decay.schedule(at) for at in (0.4, 0.7, 1.0)] == pytest.approx([0.1, 0.55, 1.0])


def test_measurements_cost_a_small_share_of_the_steps():
    for images, passes, batch in ((256, 1.5, 32), (8, 1.0, 512), (49, 1.0, 16)):
        steps = HeldOut(lambda: [], images).interval(passes, batch)
        assert images * passes / (3 * steps * batch) <= COST

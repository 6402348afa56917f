"""Held-out losses in training: what is logged, which weights are saved, when the run stops."""

import pytest
import torch
from safetensors.torch import load_file

from dalle_mini_impl.training.checkpoints import list_checkpoints, read_state
from tests.training.toy import (
    Regression,
    assert_equal,
    folder,
    overfitted,
    points,
    settings,
    tensors,
    train_toy,
)

STEPS = 150


def trained(path, held_out=None, objective=None, **changes):
    run, objective = folder(path), objective or Regression()
    usual = {"steps": STEPS, "early_stop": None, "log_every": 50}
    train_toy(objective, points, settings(**usual | changes), run, held_out=held_out)
    return run, objective


def measured(run):
    return [(r["step"], r["held_out_squared"]) for r in run.metrics() if "held_out_squared" in r]


def held_out_loss(run):
    """That of the saved weights."""
    model = Regression().model
    model.load_state_dict(load_file(run.weights_path("toy")))
    (batch,) = overfitted().batches()
    with torch.no_grad():
        return Regression().held_out_losses(model.eval(), batch)["squared"].item()


def newest_state(run):
    return read_state(list_checkpoints(run.checkpoints("toy"))[0])


def test_held_out_losses_are_logged_at_intervals_and_at_the_end(tmp_path, capsys):
    run, _ = trained(tmp_path / "run", overfitted())
    # Few images are known by heart within the first interval, here of 5 steps.
    assert [step for step, _ in measured(run)] == [1, 2, 3, 4, *range(5, STEPS + 1, 5)]
    assert "held-out squared" in capsys.readouterr().out


def test_the_best_weights_are_saved_and_on_request_the_last(tmp_path, capsys):
    best, _ = trained(tmp_path / "best", overfitted())
    last, _ = trained(tmp_path / "last", overfitted(), keep="last")
    losses = measured(best)
    assert losses == measured(last)
    lowest = min(losses, key=lambda pair: pair[1])
    assert 1.2 * lowest[1] < losses[-1][1], "the toy no longer overfits"
    assert held_out_loss(best) == pytest.approx(lowest[1])
    assert held_out_loss(last) == pytest.approx(losses[-1][1])
    assert f"keeping the weights of step {lowest[0]}: held-out squared" in capsys.readouterr().out


def test_measuring_does_not_change_training(tmp_path):
    plain, _ = trained(tmp_path / "plain", keep="last")
    with_it, _ = trained(tmp_path / "with", overfitted(), keep="last")
    assert len(measured(with_it)) > 3
    assert_equal(*(load_file(run.weights_path("toy")) for run in (plain, with_it)))
    assert_equal(tensors(plain)["optimizers"], tensors(with_it)["optimizers"])


def test_a_run_that_no_longer_improves_stops_and_decays_from_its_best(tmp_path, capsys):
    whole, _ = trained(tmp_path / "whole", overfitted())
    run, objective = trained(tmp_path / "run", overfitted(), early_stop=0.19)
    best = min(measured(whole), key=lambda pair: pair[1])
    state, said = newest_state(run), capsys.readouterr().out
    assert state.decay is not None
    assert f"stopping early at step {state.decay.start}: held-out squared is" in said
    assert f"best at step {best[0]}" in said
    assert state.decay.start == pytest.approx(best[0] + 0.19 * STEPS, abs=5)
    assert len(objective.seen) == state.step == state.decay.start + round(0.1 * state.decay.start)
    assert state.progress(settings(steps=STEPS)) == 1
    assert held_out_loss(run) < 1.0001 * best[1]
    # The rate falls from that of the best step to zero, and the schedules go on from there.
    decaying = objective.seen[state.decay.start :]
    assert decaying[0] == pytest.approx(best[0] / STEPS)
    assert decaying == sorted(decaying)
    assert run.metrics()[-1]["step"] == state.step


def test_a_run_that_improves_to_its_end_says_nothing(tmp_path, capsys):
    def same():
        yield points(10_000)

    held_out = overfitted()
    object.__setattr__(held_out, "batches", same)
    run, _ = trained(tmp_path / "run", held_out, Regression(noise=0.0), early_stop=0.25, ema=0.95)
    assert newest_state(run).step == STEPS
    assert newest_state(run).best.step == STEPS
    said = capsys.readouterr().out
    assert "stopping early" not in said
    assert "keeping" not in said


def test_losses_that_do_not_compare_yet_decide_nothing(tmp_path):
    objective = Regression()
    objective.comparable_from = 1.0
    run, _ = trained(tmp_path / "run", overfitted(), objective, early_stop=0.19)
    assert newest_state(run).best.step == STEPS
    assert held_out_loss(run) == pytest.approx(measured(run)[-1][1])

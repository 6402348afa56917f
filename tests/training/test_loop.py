"""The training loop: learning, averaging, time limits, accumulation, previews."""

import time

import torch
from safetensors.torch import load_file

from dalle_mini_impl.training import loop as training_loop
from tests.training.toy import (
    Regression,
    WithDiscriminator,
    assert_equal,
    folder,
    points,
    settings,
    train_toy,
)


def test_training_learns_and_saves_the_ema(tmp_path):
    run, objective = folder(tmp_path / "run"), Regression(noise=0.0)
    train_toy(objective, points, settings(steps=150, log_every=10), run)
    losses = [record["squared"] for record in run.metrics()]
    assert len(losses) == 15
    assert losses[-1] < losses[0] / 5
    saved = load_file(run.weights_path("toy"))
    last = objective.model.state_dict()
    assert not torch.equal(saved["hidden.weight"], last["hidden.weight"])
    assert torch.allclose(saved["hidden.weight"], last["hidden.weight"], atol=0.1)
    assert {"waiting", "examples_per_second", "gradient_norm"} <= run.metrics()[0].keys()


def test_training_asks_for_freed_memory_to_be_kept(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(training_loop, "keep_freed_memory", lambda: asked.append(True))
    train_toy(Regression(), points, settings(steps=1), folder(tmp_path / "run"))
    assert asked


def test_ema_zero_saves_the_last_weights(tmp_path):
    run, objective = folder(tmp_path / "run"), Regression()
    train_toy(objective, points, settings(ema=0.0), run)
    assert_equal(load_file(run.weights_path("toy")), dict(objective.model.state_dict()))


def test_a_time_budget_ends_the_schedule(tmp_path):
    def slow(step):
        time.sleep(0.01)
        return points(step)

    run, objective = folder(tmp_path / "run"), Regression()
    started = time.monotonic()
    train_toy(objective, slow, settings(steps=100_000, minutes=0.5 / 60), run)
    assert 0.4 < time.monotonic() - started < 5
    assert objective.seen == sorted(objective.seen)
    assert 0.8 < objective.seen[-1] <= 1
    assert run.has_weights("toy")
    assert run.metrics()[-1]["progress"] == 1


def test_accumulation_equals_the_large_batch(tmp_path):
    found = []
    for grad_accum_steps in (1, 2, 4):
        run = folder(tmp_path / str(grad_accum_steps))
        train_toy(Regression(noise=0.0), points, settings(grad_accum_steps=grad_accum_steps), run)
        found.append(load_file(run.weights_path("toy")))
    for other in found[1:]:
        for name, tensor in found[0].items():
            assert torch.allclose(tensor, other[name], atol=1e-4), name


def test_the_discriminator_learns_only_once_it_has_begun(tmp_path):
    run, objective = folder(tmp_path / "run"), WithDiscriminator()
    before = objective.discriminator.weight.clone()
    train_toy(objective, points, settings(log_every=1), run)
    begun = ["discriminator_loss" in record for record in run.metrics()]
    assert begun == [False] * 6 + [True] * 6
    assert not torch.equal(before, objective.discriminator.weight)


def test_previews_show_the_ema_in_eval_mode(tmp_path):
    def preview(model, step):
        assert not model.training
        assert not torch.is_grad_enabled()
        assert model is not objective.model
        steps.append(step)

    steps, objective, run = [], Regression(), folder(tmp_path / "run")
    train_toy(objective, points, settings(previews=3), run, preview=preview)
    assert steps == [4, 8, 12]


def test_the_first_step_is_told_before_there_is_a_loss(tmp_path, capsys):
    train_toy(Regression(), points, settings(steps=100, log_every=4), folder(tmp_path / "run"))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("toy ")]
    assert lines[0].startswith("toy   1%  step 1")
    assert "loss" not in lines[0]
    assert lines[1].startswith("toy   4%  step 4  loss")
    assert [line.split()[1] for line in lines[2:]] == [f"{tenth}%" for tenth in range(10, 101, 10)]

"""Compiling the training step, and running eagerly where that fails."""

from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters

from dalle_mini_impl.training.schedules import cosine
from tests.training.toy import (
    Regression,
    assert_equal,
    folder,
    points,
    settings,
    tensors,
    train_toy,
)


def test_losses_that_do_not_compile_run_eagerly(tmp_path, capsys, monkeypatch):
    def failing(function):
        def compiled(*inputs):
            raise RuntimeError("no such instruction")

        return compiled

    monkeypatch.setattr(torch, "compile", failing)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    eager, fallen = folder(tmp_path / "eager"), folder(tmp_path / "fallen")
    train_toy(Regression(), points, settings(), eager)
    train_toy(Regression(), points, settings(compile="on"), fallen)
    assert "running eager: no such instruction" in capsys.readouterr().out
    assert_equal(tensors(eager), tensors(fallen))


class Scheduled(Regression):
    """A loss whose weight is computed from progress in Python."""

    def losses(self, model, batch, progress, generator):
        loss = (model(batch.x) - batch.y).square().mean()
        return {"loss": loss * cosine(progress, 0.0, 0.9, 1.0, 0.5)}


@pytest.mark.parametrize("declared", [False, True])
def test_losses_that_change_with_progress_are_not_compiled_at_each_step(
    tmp_path, capsys, monkeypatch, declared
):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    eager, compiled = folder(tmp_path / "eager"), folder(tmp_path / "compiled")
    train_toy(Scheduled(), points, settings(), eager)
    torch._dynamo.reset()
    counters.clear()
    objective = Scheduled()
    objective.compile_models = declared
    train_toy(objective, points, settings(compile="on"), compiled)
    assert "compiled the models" in capsys.readouterr().out
    assert counters["stats"]["unique_graphs"] == (1 if declared else 3)
    assert_equal(tensors(eager), tensors(compiled))

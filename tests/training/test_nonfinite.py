"""Losses that are not finite: found, named, and never saved."""

import pytest
import torch
from torch import nn

from dalle_mini_impl.training.interruption import StopRequests
from dalle_mini_impl.training.loop import Loop
from dalle_mini_impl.training.nonfinite import FirstBadStep, NonFiniteLoss
from dalle_mini_impl.training.stage_files import StageFiles
from tests.training.toy import (
    Net,
    Points,
    Regression,
    assert_equal,
    folder,
    points,
    settings,
    tensors,
    train_toy,
)


class Exploding(nn.Module):
    def forward(self, x):
        return torch.where(x[:, :1] > 90, torch.log(-x), x)


@pytest.mark.parametrize("grad_accum_steps", [1, 4])
def test_a_non_finite_loss_names_step_and_tensor_and_keeps_the_checkpoint(
    tmp_path, grad_accum_steps
):
    run, model = folder(tmp_path / "run"), Net()
    model.hidden = nn.Sequential(Exploding(), nn.Linear(4, 8))

    def poisoned(step):
        batch = points(step)
        batch.x[7] += 100 * (step == 6)
        return batch

    config = settings(checkpoint_minutes=1e-9, grad_accum_steps=grad_accum_steps)
    with pytest.raises(NonFiniteLoss) as stopped:
        train_toy(Regression(model=model), poisoned, config, run)
    message = str(stopped.value)
    assert "at step 6 " in message
    assert "the output of hidden.0 (Exploding)" in message
    assert str(run.checkpoints("toy") / "step-6") in message
    saved = tensors(run)
    assert_equal(dict(saved["networks"][""]), dict(model.state_dict()))
    assert all(torch.isfinite(t).all() for t in saved["networks"][""].values())
    assert not run.has_weights("toy")


def test_bad_gradients_and_bad_batches_are_named(tmp_path):
    class Steep(Regression):
        def losses(self, model, batch, progress, generator):
            return {"loss": (model.out.weight.sum() * 0).sqrt() + model(batch.x).mean()}

    with pytest.raises(NonFiniteLoss, match=r"step 0 .*the gradient of out\.weight"):
        train_toy(Steep(), points, settings(), folder(tmp_path / "a"))

    def missing(step):
        return Points(points(step).x * float("inf"), points(step).y)

    with pytest.raises(NonFiniteLoss, match="x of the batch, 32 of 32"):
        train_toy(Regression(), missing, settings(), folder(tmp_path / "b"))


def test_noted_bad_steps_hold_the_weights_until_they_are_read(tmp_path):
    def poisoned(step):
        return points(step) if step != 3 else Points(points(3).x * float("nan"), points(3).y)

    objective = Regression()
    files = StageFiles(folder(tmp_path / "run"), "toy")
    loop = Loop(objective, poisoned, settings(log_every=100), files)
    loop.first_bad_step = FirstBadStep(loop.device)  # as on a GPU
    loop.begin(resume=True)
    with pytest.raises(NonFiniteLoss, match=r"at step 3 .*x of the batch"):
        loop.run_steps(StopRequests())
    assert len(objective.seen) == 12  # the loop went on, but changed nothing from step 3 on
    reference = Loop(Regression(), poisoned, settings(), StageFiles(folder(tmp_path / "b"), "toy"))
    reference.begin(resume=True)
    with pytest.raises(NonFiniteLoss):
        reference.run_steps(StopRequests())
    for kept, expected in (
        (objective.model, reference.learner.objective.model),
        (loop.learner.ema.module, reference.learner.ema.module),
    ):
        assert_equal(dict(kept.state_dict()), dict(expected.state_dict()))

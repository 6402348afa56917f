"""A regression that trains in milliseconds, for tests of the training loop."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.experiment import Experiment
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.training.checkpoints import list_checkpoints
from dalle_mini_impl.training.held_out import HeldOut
from dalle_mini_impl.training.loop import train
from dalle_mini_impl.training.stage_files import StageFiles


@dataclass(frozen=True)
class Points:
    x: torch.Tensor
    y: torch.Tensor


def points(step):
    rng = np.random.default_rng((7, step))
    x = torch.from_numpy(rng.standard_normal((8, 4), np.float32))
    return Points(x, x.sin().sum(dim=1, keepdim=True))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.hidden = nn.Linear(4, 8)
        self.out = nn.Linear(8, 1)
        self.out.output_head = True

    def forward(self, x):
        return self.out(torch.tanh(self.hidden(x)))


class Regression:
    """Squared error with noise from the step's generator."""

    def __init__(self, noise=0.1, model=None):
        self.model = model or Net()
        self.noise = noise
        self.seen = []

    def losses(self, model, batch, progress, generator):
        noise = torch.randn(batch.x.shape, generator=generator) * self.noise
        loss = (model(batch.x + noise) - batch.y).square().mean()
        self.seen.append(progress)
        return {"loss": loss, "squared": loss}

    def held_out_losses(self, model, batch):
        assert not model.training
        assert not torch.is_grad_enabled()
        return {"squared": (model(batch.x) - batch.y).square().mean()}


class WithDiscriminator(Regression):
    """A second phase from half of the run on."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.discriminator = nn.Linear(1, 1)

    def losses(self, model, batch, progress, generator):
        losses = super().losses(model, batch, progress, generator)
        self.guess = model(batch.x)
        return losses | {"loss": losses["loss"] - 0.01 * self.discriminator(self.guess).mean()}

    def discriminator_losses(self, discriminator, model, batch, progress, generator):
        if progress < 0.5:
            return {}
        return {
            "loss": (discriminator(self.guess.detach()) - discriminator(batch.y)).square().mean()
        }


def overfitted(images=1):
    """Held-out points whose loss falls and then rises: the model passes by them in training."""
    batch = points(10_000)
    return HeldOut(lambda: [Points(batch.x, 0.5 * batch.y)], images)


def settings(**changes):
    usual = {"steps": 12, "batch_size": 8, "compile": "off", "precision": "fp32", "ema": 0.9}
    return TrainingConfig(**usual | changes)


def folder(path):
    return RunFolder.create(path, Experiment())


def tensors(run):
    """Everything in the newest checkpoint."""
    newest = list_checkpoints(run.checkpoints("toy"))[0]
    return torch.load(newest / "tensors.pt", weights_only=True)


def assert_equal(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


def train_toy(objective, batches, config, run, **options):
    """Train as the stage "toy" of the run."""
    train(objective, batches, config, StageFiles(run, "toy"), **options)


SCRIPT = """
import sys
sys.path.insert(0, {root!r})
import time
from pathlib import Path
import torch
import torch.distributed as dist
from tests.training.toy import Points, Regression, folder, points, settings, train_toy
torch.set_num_threads(1)

def slow(step):
    time.sleep({pause})
    if dist.is_initialized():
        half = slice(4 * dist.get_rank(), 4 * dist.get_rank() + 4)
        return Points(points(step).x[half], points(step).y[half])
    return points(step)

run = folder(Path({path!r}))
train_toy(Regression(noise={noise}), slow, settings(log_every=1), run)
"""


def script(path, **values):
    """A file that trains the regression in path/run, and the environment to run it in."""
    root = str(Path(__file__).resolve().parents[2])
    text = SCRIPT.format(root=root, path=str(path / "run"), **values)
    (path / "script.py").write_text(text)
    return str(path / "script.py"), {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}

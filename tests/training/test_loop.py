"""The training loop: exact resumption, signals, guards, budgets, accumulation, processes."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch._dynamo.utils import counters

from dalle_mini_impl.config import ConfigError, TrainingConfig
from dalle_mini_impl.experiment import Experiment
from dalle_mini_impl.precision import choose_precision
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.training import loop as training_loop
from dalle_mini_impl.training.checkpoints import list_checkpoints
from dalle_mini_impl.training.interruption import StopRequests
from dalle_mini_impl.training.loop import Loop, train
from dalle_mini_impl.training.nonfinite import NonFiniteLoss
from dalle_mini_impl.training.schedules import cosine


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


class Adversarial(Regression):
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


def settings(**changes):
    usual = {"steps": 12, "batch_size": 8, "compile": "off", "precision": "fp32", "ema": 0.9}
    return TrainingConfig(**usual | changes)


def folder(path):
    return RunFolder.create(path, Experiment())


def state(run, stage="toy"):
    """Everything in the newest checkpoint, flattened to text and tensors."""
    newest = list_checkpoints(run.checkpoints(stage))[0]
    return torch.load(newest / "state.pt", weights_only=True)


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


@pytest.mark.parametrize("make", [Regression, Adversarial])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, make):
    whole, broken = folder(tmp_path / "whole"), folder(tmp_path / "broken")
    train(make(), points, settings(), whole, "toy")

    def interrupting(step):
        if step == 9:  # made ahead of step 7 at the earliest
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
        return points(step)

    with pytest.raises(SystemExit) as left:
        train(make(), interrupting, settings(), broken, "toy")
    assert left.value.code == 128 + signal.SIGTERM
    assert not broken.has_weights("toy")
    stopped = int(list_checkpoints(broken.checkpoints("toy"))[0].name[5:])
    assert 6 < stopped < 12
    train(make(), points, settings(), broken, "toy")
    assert_equal(state(whole), state(broken))
    assert_equal(*(load_file(run.weights_path("toy")) for run in (whole, broken)))


def test_training_learns_and_saves_the_average(tmp_path):
    run, objective = folder(tmp_path / "run"), Regression(noise=0.0)
    train(objective, points, settings(steps=150, log_every=10), run, "toy", weights="net")
    losses = [record["squared"] for record in run.metrics()]
    assert len(losses) == 15
    assert losses[-1] < losses[0] / 5
    saved = load_file(run.weights_path("net"))
    last = objective.model.state_dict()
    assert not torch.equal(saved["hidden.weight"], last["hidden.weight"])
    assert torch.allclose(saved["hidden.weight"], last["hidden.weight"], atol=0.1)
    assert {"waiting", "examples_per_second", "gradient_norm"} <= run.metrics()[0].keys()


def test_training_asks_for_freed_memory_to_be_kept(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(training_loop, "keep_freed_memory", lambda: asked.append(True))
    train(Regression(), points, settings(steps=1), folder(tmp_path / "run"), "toy")
    assert asked


def test_ema_zero_saves_the_last_weights(tmp_path):
    run, objective = folder(tmp_path / "run"), Regression()
    train(objective, points, settings(ema=0.0), run, "toy")
    assert_equal(load_file(run.weights_path("toy")), dict(objective.model.state_dict()))


def test_the_last_two_checkpoints_are_kept_and_no_resume_starts_anew(tmp_path):
    run = folder(tmp_path / "run")
    train(Regression(), points, settings(checkpoint_minutes=1e-9), run, "toy")
    kept = [path.name for path in list_checkpoints(run.checkpoints("toy"))]
    assert kept == ["step-12", "step-11"]
    again = Regression()
    train(again, points, settings(), run, "toy", resume=False)
    assert len(again.seen) == 12
    finished = Regression()
    train(finished, points, settings(), run, "toy")
    assert finished.seen == []


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    run = folder(tmp_path / "run")
    train(Regression(), points, settings(), run, "toy")
    with pytest.raises(ConfigError, match=r"step-12 does not fit.*--no-resume"):
        train(Regression(model=nn.Linear(4, 1)), points, settings(), run, "toy")


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
        train(Regression(model=model), poisoned, config, run, "toy")
    message = str(stopped.value)
    assert "at step 6 " in message
    assert "the output of hidden.0 (Exploding)" in message
    assert str(run.checkpoints("toy") / "step-6") in message
    saved = state(run)
    assert_equal(dict(saved["parts"][""]), dict(model.state_dict()))
    assert all(torch.isfinite(t).all() for t in saved["parts"][""].values())
    assert not run.has_weights("toy")


def test_bad_gradients_and_bad_batches_are_named(tmp_path):
    class Steep(Regression):
        def losses(self, model, batch, progress, generator):
            return {"loss": (model.out.weight.sum() * 0).sqrt() + model(batch.x).mean()}

    with pytest.raises(NonFiniteLoss, match=r"step 0 .*the gradient of out\.weight"):
        train(Steep(), points, settings(), folder(tmp_path / "a"), "toy")

    def missing(step):
        return Points(points(step).x * float("inf"), points(step).y)

    with pytest.raises(NonFiniteLoss, match="x of the batch, 32 of 32"):
        train(Regression(), missing, settings(), folder(tmp_path / "b"), "toy")


def test_noted_bad_steps_hold_the_weights_until_they_are_read(tmp_path):
    def poisoned(step):
        return points(step) if step != 3 else Points(points(3).x * float("nan"), points(3).y)

    objective = Regression()
    loop = Loop(objective, poisoned, settings(log_every=100), folder(tmp_path / "run"), "toy")
    loop.lazy = True  # as on a GPU
    loop.begin(resume=True)
    with pytest.raises(NonFiniteLoss, match=r"at step 3 .*x of the batch"):
        loop.run_steps(StopRequests())
    assert len(objective.seen) == 12  # the loop went on, but changed nothing from step 3 on
    reference = Regression()
    with pytest.raises(NonFiniteLoss):
        train(reference, poisoned, settings(), folder(tmp_path / "other"), "toy")
    assert_equal(dict(objective.model.state_dict()), dict(reference.model.state_dict()))


def test_a_time_budget_ends_the_schedule(tmp_path):
    def slow(step):
        time.sleep(0.01)
        return points(step)

    run, objective = folder(tmp_path / "run"), Regression()
    started = time.monotonic()
    train(objective, slow, settings(steps=100_000, minutes=0.5 / 60), run, "toy")
    assert 0.4 < time.monotonic() - started < 5
    assert objective.seen == sorted(objective.seen)
    assert 0.8 < objective.seen[-1] <= 1
    assert run.has_weights("toy")
    assert run.metrics()[-1]["progress"] == 1


def test_accumulation_equals_the_large_batch(tmp_path):
    found = []
    for grad_accum_steps in (1, 2, 4):
        run = folder(tmp_path / str(grad_accum_steps))
        train(
            Regression(noise=0.0), points, settings(grad_accum_steps=grad_accum_steps), run, "toy"
        )
        found.append(load_file(run.weights_path("toy")))
    for other in found[1:]:
        for name, tensor in found[0].items():
            assert torch.allclose(tensor, other[name], atol=1e-4), name


def test_the_adversary_learns_only_once_it_has_begun(tmp_path):
    run, objective = folder(tmp_path / "run"), Adversarial()
    before = objective.discriminator.weight.clone()
    train(objective, points, settings(log_every=1), run, "toy")
    begun = ["discriminator_loss" in record for record in run.metrics()]
    assert begun == [False] * 6 + [True] * 6
    assert not torch.equal(before, objective.discriminator.weight)


def test_previews_are_drawn_from_the_average_in_eval_mode(tmp_path):
    def preview(model, step):
        assert not model.training
        assert not torch.is_grad_enabled()
        assert model is not objective.model
        steps.append(step)

    steps, objective, run = [], Regression(), folder(tmp_path / "run")
    train(objective, points, settings(previews=3), run, "toy", preview=preview)
    assert steps == [4, 8, 12]


def test_losses_that_do_not_compile_run_eagerly(tmp_path, capsys, monkeypatch):
    def failing(function):
        def compiled(*inputs):
            raise RuntimeError("no such instruction")

        return compiled

    monkeypatch.setattr(torch, "compile", failing)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    eager, fallen = folder(tmp_path / "eager"), folder(tmp_path / "fallen")
    train(Regression(), points, settings(), eager, "toy")
    train(Regression(), points, settings(compile="on"), fallen, "toy")
    assert "running eager: no such instruction" in capsys.readouterr().out
    assert_equal(state(eager), state(fallen))


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
    train(Scheduled(), points, settings(), eager, "toy")
    torch._dynamo.reset()
    counters.clear()
    objective = Scheduled()
    objective.compile_models = declared
    train(objective, points, settings(compile="on"), compiled, "toy")
    assert "compiled the models" in capsys.readouterr().out
    assert counters["stats"]["unique_graphs"] == (1 if declared else 3)
    assert_equal(state(eager), state(compiled))


def test_bf16_is_refused_on_a_cpu_that_emulates_it(monkeypatch):
    cpu = torch.device("cpu")
    name = "dalle_mini_impl.precision.native_bf16"
    monkeypatch.setattr(name, lambda device: False)
    assert choose_precision("auto", cpu) == "fp32"
    with pytest.raises(ConfigError, match="use `auto` or `fp32`"):
        choose_precision("bf16", cpu)
    monkeypatch.setattr(name, lambda device: True)
    assert choose_precision("auto", cpu) == "bf16"


SCRIPT = """
import sys
sys.path.insert(0, {root!r})
import time
from pathlib import Path
from tests.training.test_loop import Regression, folder, points, settings
from dalle_mini_impl.training.interruption import StopRequests
from dalle_mini_impl.training.loop import train
import torch
import torch.distributed as dist
torch.set_num_threads(1)

def slow(step):
    time.sleep({pause})
    if dist.is_initialized():
        from tests.training.test_loop import Points
        half = slice(4 * dist.get_rank(), 4 * dist.get_rank() + 4)
        return Points(points(step).x[half], points(step).y[half])
    return points(step)

run = folder(Path({path!r}))
train(Regression(noise={noise}), slow, settings(log_every=1), run, "toy")
"""


def script(path, **values):
    root = str(Path(__file__).resolve().parents[2])
    text = SCRIPT.format(root=root, path=str(path / "run"), **values)
    (path / "script.py").write_text(text)
    return str(path / "script.py"), {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}


def test_sigterm_saves_and_the_same_command_continues(tmp_path):
    file, environment = script(tmp_path, pause=0.1, noise=0.1)
    command = [sys.executable, file]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not metrics.is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "saved at step" in output
    run = RunFolder.open(tmp_path / "run")
    assert not run.has_weights("toy")
    train(Regression(), points, settings(), run, "toy")
    whole = folder(tmp_path / "whole")
    train(Regression(), points, settings(), whole, "toy")
    assert_equal(state(whole), state(run))


def launch(*command, env):
    line = [sys.executable, "-m", *command]
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_accelerate_launch_trains_on_the_cpu(tmp_path):
    file, environment = script(tmp_path, pause=0.0, noise=0.1)
    command = ("accelerate.commands.launch", "--num_processes", "2", "--cpu", file)
    # Without MPI the launcher starts one process, silently: the loop says how to get two.
    assert "torchrun --nproc_per_node" in launch(*command, env=environment)
    whole = folder(tmp_path / "whole")
    train(Regression(), points, settings(), whole, "toy")
    assert_equal(state(whole), state(RunFolder.open(tmp_path / "run")))


def test_two_processes_train_as_one_with_twice_the_batch(tmp_path):
    file, environment = script(tmp_path, pause=0.0, noise=0.0)
    launch("torch.distributed.run", "--standalone", "--nproc_per_node", "2", file, env=environment)
    run = RunFolder.open(tmp_path / "run")
    place = list_checkpoints(run.checkpoints("toy"))[0] / "place.json"
    assert json.loads(place.read_text())["processes"] == 2
    single = folder(tmp_path / "single")
    train(Regression(noise=0.0), points, settings(), single, "toy")
    together, alone = (load_file(r.weights_path("toy")) for r in (run, single))
    for name, tensor in alone.items():
        assert torch.allclose(tensor, together[name], atol=1e-4), name

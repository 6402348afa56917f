"""Training on several processes, and how they are launched."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from dalle_mini_impl.cli.launch_processes import missing_processes
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.training.checkpoints import list_checkpoints, read_state
from tests.tiny import tiny_experiment
from tests.training.toy import (
    Regression,
    assert_equal,
    folder,
    points,
    script,
    settings,
    tensors,
    train_toy,
)

ROOT = Path(__file__).parents[2]
LAUNCHED = {"ACCELERATE_USE_CPU": "True", "MASTER_PORT": "29500"}


def test_the_number_is_read_from_the_launchers_options():
    launcher = ["python", "accelerate", "launch", "--num_processes", "3", "--cpu", "train.py"]
    assert missing_processes(LAUNCHED, launcher) == 3
    assert missing_processes(LAUNCHED, ["accelerate", "launch", "--num-processes=2"]) == 2


def test_nothing_is_missing_otherwise():
    launcher = ["accelerate", "launch", "--num_processes", "2"]
    assert missing_processes({}, launcher) == 0
    assert missing_processes({**LAUNCHED, "WORLD_SIZE": "2"}, launcher) == 0
    assert missing_processes(LAUNCHED, ["accelerate", "launch", "--num_processes", "1"]) == 0
    assert missing_processes(LAUNCHED, ["bash"]) == 0


def test_accelerate_launch_on_the_cpu_trains_on_two_processes(tmp_path):
    training = {"steps": 4, "batch_size": 4, "compile": "off", "precision": "fp32", "previews": 0}
    config = tmp_path / "tiny.yaml"
    config.write_text(tiny_experiment(training).to_yaml())
    run = tmp_path / "run"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--cpu"]
    for stage in ("captions", "image_tokenizer"):
        command = [*launch, str(ROOT / "train.py"), str(config), "--run", str(run)]
        done = subprocess.run(
            [*command, "--stage", stage],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr[-2000:]
    (checkpoint, *_) = list_checkpoints(run / "checkpoints" / "image_tokenizer")
    assert read_state(checkpoint).processes == 2
    assert (run / "image_tokenizer.safetensors").is_file()


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
    train_toy(Regression(), points, settings(), whole)
    assert_equal(tensors(whole), tensors(RunFolder.open(tmp_path / "run")))


def test_two_processes_train_as_one_with_twice_the_batch(tmp_path):
    file, environment = script(tmp_path, pause=0.0, noise=0.0)
    launch("torch.distributed.run", "--standalone", "--nproc_per_node", "2", file, env=environment)
    run = RunFolder.open(tmp_path / "run")
    assert read_state(list_checkpoints(run.checkpoints("toy"))[0]).processes == 2
    single = folder(tmp_path / "single")
    train_toy(Regression(noise=0.0), points, settings(), single)
    together, alone = (load_file(r.weights_path("toy")) for r in (run, single))
    for name, tensor in alone.items():
        assert torch.allclose(tensor, together[name], atol=1e-4), name

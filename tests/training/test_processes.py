"""`accelerate launch --num_processes 2 --cpu train.py …` trains on two processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

from dalle_mini_impl.cli.processes import missing_processes
from dalle_mini_impl.experiment import Experiment
from tests.tiny import SETTINGS

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
    settings = {
        **SETTINGS,
        "image_tokenizer": {**SETTINGS["image_tokenizer"], "training": training},
    }
    config = tmp_path / "tiny.yaml"
    config.write_text(Experiment.model_validate(settings).to_yaml())
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
    place = next((run / "checkpoints" / "image_tokenizer").glob("*/place.json"))
    assert json.loads(place.read_text())["processes"] == 2
    assert (run / "image_tokenizer.safetensors").is_file()

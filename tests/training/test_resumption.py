"""Interrupted training: exact resumption, signals, checkpoints."""

import os
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file
from torch import nn

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.files import temporary_path
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.training.checkpoints import list_checkpoints, read_state
from tests.training.toy import (
    Regression,
    WithDiscriminator,
    assert_equal,
    folder,
    overfitted,
    points,
    script,
    settings,
    tensors,
    train_toy,
)


@pytest.mark.parametrize("at", [4, 60, 80])
def test_resumed_equals_uninterrupted_where_it_stops_early(tmp_path, at):
    """Killed before the first measurement, between best step (45) and stop (75), and after it."""
    stopping = settings(steps=150, early_stop=0.19, log_every=1)
    whole, broken = folder(tmp_path / "whole"), folder(tmp_path / "broken")
    train_toy(Regression(), points, stopping, whole, held_out=overfitted())

    def interrupting(step):
        if step == at:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
        return points(step)

    with pytest.raises(SystemExit):
        train_toy(Regression(), interrupting, stopping, broken, held_out=overfitted())
    train_toy(Regression(), points, stopping, broken, held_out=overfitted())
    assert_equal(tensors(whole), tensors(broken))
    assert_equal(*(load_file(run.weights_path("toy")) for run in (whole, broken)))
    states = [read_state(list_checkpoints(run.checkpoints("toy"))[0]) for run in (whole, broken)]
    assert states[0].decay is not None
    assert states[0].decay.start < 78 < 80 < states[0].step
    assert [states[0].best, states[0].decay] == [states[1].best, states[1].decay]
    steps = [[r["step"] for r in run.metrics() if "loss" in r] for run in (whole, broken)]
    assert steps[0] == steps[1]


@pytest.mark.parametrize("make", [Regression, WithDiscriminator])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, make):
    whole, broken = folder(tmp_path / "whole"), folder(tmp_path / "broken")
    train_toy(make(), points, settings(), whole)

    def interrupting(step):
        if step == 9:  # made ahead of step 7 at the earliest
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
        return points(step)

    with pytest.raises(SystemExit) as left:
        train_toy(make(), interrupting, settings(), broken)
    assert left.value.code == 128 + signal.SIGTERM
    assert not broken.has_weights("toy")
    stopped = int(list_checkpoints(broken.checkpoints("toy"))[0].name[5:])
    assert 6 < stopped < 12
    train_toy(make(), points, settings(), broken)
    assert_equal(tensors(whole), tensors(broken))
    assert_equal(*(load_file(run.weights_path("toy")) for run in (whole, broken)))


def test_the_last_two_checkpoints_are_kept_and_no_resume_starts_anew(tmp_path):
    run = folder(tmp_path / "run")
    train_toy(Regression(), points, settings(checkpoint_minutes=1e-9), run)
    kept = [path.name for path in list_checkpoints(run.checkpoints("toy"))]
    assert kept == ["step-12", "step-11"]
    again = Regression()
    train_toy(again, points, settings(), run, resume=False)
    assert len(again.seen) == 12
    finished = Regression()
    train_toy(finished, points, settings(), run)
    assert finished.seen == []


@pytest.mark.parametrize("name", ["tensors.pt", "state.json", "digest"])
def test_a_damaged_checkpoint_is_passed_over_aloud(tmp_path, capsys, name):
    def until_step_8(step):
        if step == 8:
            raise InterruptedError
        return points(step)

    whole, damaged = folder(tmp_path / "whole"), folder(tmp_path / "damaged")
    train_toy(Regression(), points, settings(), whole)
    often = settings(checkpoint_minutes=1e-9)
    with pytest.raises(InterruptedError):
        train_toy(Regression(), until_step_8, often, damaged)
    file = damaged.checkpoints("toy") / "step-8" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    train_toy(Regression(), points, settings(), damaged)
    said = capsys.readouterr().out
    assert "step-8 is damaged" in said
    assert "resuming at step 7" in said
    assert_equal(*(load_file(run.weights_path("toy")) for run in (whole, damaged)))


def test_what_a_killed_process_left_of_a_checkpoint_is_removed(tmp_path):
    run = folder(tmp_path / "run")
    left = temporary_path(run.checkpoints("toy") / "step-3")
    left.mkdir()
    train_toy(Regression(), points, settings(), run)
    assert not left.exists()


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    run = folder(tmp_path / "run")
    train_toy(Regression(), points, settings(), run)
    with pytest.raises(ConfigError, match=r"step-12 does not fit.*--no-resume"):
        train_toy(Regression(model=nn.Linear(4, 1)), points, settings(), run)


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
    train_toy(Regression(), points, settings(), run)
    whole = folder(tmp_path / "whole")
    train_toy(Regression(), points, settings(), whole)
    assert_equal(tensors(whole), tensors(run))

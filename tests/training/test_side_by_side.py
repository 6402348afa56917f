"""The transformer and CLIP trained side by side, each by a process of its own."""

import time

import psutil
import pytest
import torch
from safetensors.torch import load_file

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.training import run_stages as stages
from dalle_mini_impl.training.checkpoints import list_checkpoints
from dalle_mini_impl.training.context import StageContext
from dalle_mini_impl.training.run_stages import run_stages
from dalle_mini_impl.training.side_by_side import can_share_cores
from tests.tiny import TWO_STEPS, tiny_experiment


@pytest.fixture
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def with_tokenizer(path, clip_steps=2):
    """A run that has everything but a transformer and CLIP."""
    captions = {"vocabulary": None, "vocabulary_size": 300, "context": 12}
    clip = {"training": TWO_STEPS | {"steps": clip_steps}}
    run = RunFolder.create(path, tiny_experiment(TWO_STEPS, captions=captions, clip=clip))
    for stage in ("captions", "image_tokenizer", "codes"):
        run_stages(run, stage)
    return run


def test_both_are_trained_as_they_would_be_in_turn(tmp_path, two_threads, capfd):
    run = with_tokenizer(tmp_path / "run")
    run_stages(run, side_by_side=True)
    said = capfd.readouterr().out
    assert "transformer and clip: trained side by side" in said
    assert "clip 100%" in said  # what the other process prints
    assert said.count("clip: done. Next: python sample.py") == 1
    assert torch.get_num_threads() == 2
    weights = load_file(run.weights_path("clip"))

    torch.set_num_threads(1)
    run_stages(run, "clip", resume=False)
    alone = load_file(run.weights_path("clip"))
    assert all(torch.equal(weights[name], alone[name]) for name in alone)


def test_the_other_process_saves_and_stops_if_this_one_fails(tmp_path, two_threads, monkeypatch):
    run = with_tokenizer(tmp_path / "run", clip_steps=100_000)
    checkpoints = run.checkpoints("clip")

    def fail(context):
        while not any(record["stage"] == "clip" for record in run.metrics()):
            time.sleep(0.1)
        raise ConfigError("no room")

    monkeypatch.setitem(stages.FUNCTIONS, "transformer", fail)
    with pytest.raises(ConfigError, match="no room"):
        run_stages(run, side_by_side=True)
    assert len(list_checkpoints(checkpoints)) == 1
    assert [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE] == []
    assert torch.get_num_threads() == 2


def test_a_failure_of_the_other_process_is_this_one_s(tmp_path, two_threads, monkeypatch, capfd):
    run = with_tokenizer(tmp_path / "run")
    monkeypatch.setitem(stages.FUNCTIONS, "transformer", lambda context: None)
    run.weights_path("image_tokenizer").write_bytes(b"damaged")
    monkeypatch.setattr(stages, "missing_stages", lambda run: ["transformer", "clip"])
    with pytest.raises(SystemExit) as raised:
        run_stages(run, side_by_side=True)
    assert raised.value.code == 2
    said = capfd.readouterr().out
    assert "clip: " in said
    assert "image_tokenizer.safetensors" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("threads", "launched"), [(1, False), (2, True)])
def test_cores_are_shared_only_where_there_are_two_and_no_launcher(
    tmp_path, two_threads, monkeypatch, threads, launched
):
    context = StageContext(RunFolder.create(tmp_path / "run", tiny_experiment(TWO_STEPS)))
    assert can_share_cores(context)
    torch.set_num_threads(threads)
    if launched:
        monkeypatch.setenv("MASTER_PORT", "1")
    assert not can_share_cores(context)

"""A run folder keeps what sampling needs, refuses what does not fit, and runs no code."""

import json
import os
import pickle
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dalle_mini_impl.captions import CaptionsConfig, CaptionTokenizer
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.experiment import FORMAT, Experiment, load_experiment
from dalle_mini_impl.models.dalle import TransformerConfig
from dalle_mini_impl.runs import weights as weights_module
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.newest import newest
from dalle_mini_impl.runs.weights import RunError


@pytest.fixture
def run(tmp_path) -> RunFolder:
    experiment = Experiment(transformer=TransformerConfig(depth=3))
    return RunFolder.create(tmp_path / "runs" / "a", experiment)


def test_a_copied_run_is_the_same_run(run, tmp_path):
    run.record_fingerprint("abc")
    tokenizer = CaptionTokenizer.train(["a red star"] * 3, CaptionsConfig(context=5))
    run.save_captions(tokenizer)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    run.save_weights("clip", model.state_dict())
    shutil.copytree(run.path, tmp_path / "copy")
    shutil.rmtree(run.path)

    copy = RunFolder.open(tmp_path / "copy")
    assert copy.experiment.transformer.depth == 3
    assert copy.fingerprint == "abc"
    assert copy.captions().encode(["red"]).tolist() == tokenizer.encode(["red"]).tolist()
    other = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    copy.load_weights("clip", other)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=0, atol=0)
    text = (copy.path / "config.yaml").read_text(encoding="utf-8")
    assert f"format: {FORMAT}\n" in text
    assert "package_version: " in text
    assert "data_fingerprint: abc" in text
    assert load_experiment(copy.path / "config.yaml") == copy.experiment


@pytest.mark.parametrize(
    ("old", "given"),
    [
        ("transformer: {hidden: 48}\nrun: {package_version: 0.0.9}", "0.0.9 without a format"),
        ("run: {format: 1, package_version: 0.2.0}", "0.2.0 in format 1"),
        ("run: {format: 3, package_version: 7.0.0}", "7.0.0 in format 3"),
        ("transformer: {depth: 2}", "unknown without a format"),
    ],
)
def test_a_run_in_another_format_is_refused_in_one_line(run, old, given):
    config = run.path / "config.yaml"
    config.write_text(old, encoding="utf-8")
    with pytest.raises(ConfigError, match=f"written by version {given}.*train the run again") as e:
        RunFolder.open(run.path)
    assert str(config) in str(e.value)
    assert "\n" not in str(e.value)
    if "run:" in old:  # without a record, the file is an ordinary experiment
        with pytest.raises(ConfigError, match=f"written by version {given}"):
            load_experiment(config)


def test_opening_makes_no_folders(run):
    RunFolder.open(run.path)
    assert [file.name for file in run.path.iterdir()] == ["config.yaml"]
    assert run.checkpoints("clip") == run.path / "checkpoints" / "clip"
    assert all(f.is_dir() for f in (run.previews, run.cache, run.checkpoints("clip")))


@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        (nn.Linear(3, 2), "missing: bias"),
        (nn.Linear(4, 2, bias=False), r"weight \[2, 3\] where \[2, 4\] is configured"),
        (nn.Identity(), "unexpected: weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(run, module, complaint):
    run.save_weights("dalle", nn.Linear(3, 2, bias=False).state_dict())
    with pytest.raises(RunError, match=rf"dalle\.safetensors.*config\.yaml.*{complaint}"):
        run.load_weights("dalle", module)


def test_missing_damaged_and_foreign_weights_are_refused(run, tmp_path):
    model = nn.Linear(3, 2)
    with pytest.raises(RunError, match=r"no such weights \(there: none\)"):
        run.load_weights("dalle", model)
    run.save_weights("dalle", model.state_dict())
    path = run.weights_path("dalle")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(RunError, match="damaged"):
        run.load_weights("dalle", model)
    path.write_bytes(whole[:-3])
    with pytest.raises(RunError, match="not readable as safetensors"):
        run.load_weights("dalle", model)

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(RunError, match="not readable as safetensors"):
        run.weights_hash("dalle")
    with pytest.raises(RunError, match="not readable as safetensors"):
        run.load_weights("dalle", model)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX's")
def test_weights_have_the_permissions_of_their_folder(run):
    run.path.chmod(0o755)
    run.save_weights("a", nn.Linear(3, 2).state_dict())
    assert run.weights_path("a").stat().st_mode & 0o777 == 0o644
    run.path.chmod(0o700)
    run.save_weights("a", nn.Linear(3, 2).state_dict())
    assert run.weights_path("a").stat().st_mode & 0o777 == 0o600


def test_the_hash_identifies_the_values(run):
    model = nn.Linear(3, 2)
    run.save_weights("a", model.state_dict())
    run.save_weights("b", dict(reversed(model.state_dict().items())))
    run.save_weights("c", {k: v + 1 for k, v in model.state_dict().items()})
    assert run.weights_hash("a") == run.weights_hash("b") != run.weights_hash("c")
    assert run.has_weights("a")
    assert not run.has_weights("d")


def test_shared_scalar_and_half_precision_tensors_are_kept(run):
    shared = torch.randn(2, 3)
    state = {"a": shared, "b": shared.T, "c": torch.tensor(2.0), "d": shared.bfloat16()}
    run.save_weights("x", state)
    tensors, _ = run._read_weights("x")
    assert all(torch.equal(tensors[name], value) for name, value in state.items())


def test_an_interrupted_write_leaves_the_previous_file(run, monkeypatch):
    model = nn.Linear(3, 2)
    run.save_weights("dalle", model.state_dict())
    before = run.weights_path("dalle").read_bytes()

    def interrupted(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(weights_module, "save_file", interrupted)
    with pytest.raises(OSError, match="disk full"):
        run.save_weights("dalle", nn.Linear(3, 2).state_dict())
    assert run.weights_path("dalle").read_bytes() == before
    assert sorted(file.name for file in run.path.iterdir()) == ["config.yaml", "dalle.safetensors"]


def test_metrics_are_appended_and_survive_an_incomplete_line(run):
    assert run.metrics() == []
    run.log("clip", 1, loss=torch.tensor(0.5), usage=[1, 2])
    run.log("clip", 2, loss=float("nan"))
    path = run.path / "metrics.jsonl"
    with path.open("a") as file:
        file.write('{"stage": "clip", "st')
    first = {"stage": "clip", "step": 1, "loss": 0.5, "usage": [1, 2]}
    second = {"stage": "clip", "step": 2, "loss": None}
    assert run.metrics() == [first, second]
    run.log("clip", 3, note="né")
    assert run.metrics() == [first, second, {"stage": "clip", "step": 3, "note": "né"}]
    assert all(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    path.write_text("nonsense\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"metrics\.jsonl, line 1"):
        run.metrics()


def test_metrics_leave_out_what_a_resumption_superseded(run):
    for step in (10, 20, 30):
        run.log("dalle", step, loss=step)
    run.log("clip", 10, loss=1)
    for step in (20, 30, 40):
        run.log("dalle", step, loss=-step)
    values = [(r["stage"], r["loss"]) for r in run.metrics()]
    assert values == [
        ("dalle", 10), ("clip", 1), ("dalle", -20), ("dalle", -30), ("dalle", -40)
    ]  # fmt: skip


def test_tensorboard_gets_the_numbers_or_says_how_to_install_it(run, monkeypatch):
    module = "torch.utils.tensorboard"
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"pip install tensorboard"):
        run.mirror_to_tensorboard()

    scalars = []
    writer = SimpleNamespace(add_scalar=lambda *scalar: scalars.append(scalar))
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(SummaryWriter=lambda folder: writer))
    run.mirror_to_tensorboard()
    run.log("clip", 7, loss=torch.tensor(0.5), note="text", rates=[1.0])
    assert scalars == [("clip/loss", 0.5, 7)]
    assert len(run.metrics()) == 1


def test_other_data_is_noticed(run):
    run.record_fingerprint("abc")
    run.record_fingerprint("abc")
    reopened = RunFolder.open(run.path)
    with pytest.raises(RunError, match=r"data changed.*abc.*xyz.*another --run"):
        reopened.record_fingerprint("xyz")


def test_the_newest_run_is_the_last_modified_one(run):
    other = RunFolder.create(run.path.parent / "b", Experiment())
    run.save_weights("dalle", nn.Linear(1, 1).state_dict())
    os.utime(other.path / "config.yaml", (1e9, 1e9))
    assert newest(run.path.parent).path == run.path
    later = os.stat(run.weights_path("dalle")).st_mtime + 10
    os.utime(other.path / "config.yaml", (later, later))
    assert newest(run.path.parent).path == other.path
    assert newest(run.path.parent, weights="dalle").path == run.path


def test_a_run_that_is_not_there_says_what_to_do(run, tmp_path):
    with pytest.raises(RunError, match=r"b: not a run \(there is no such folder\); runs in .*: a"):
        RunFolder.open(run.path.parent / "b")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"empty: not a run \(config\.yaml is missing\)"):
        RunFolder.open(tmp_path / "empty")
    with pytest.raises(RunError, match=r"no run there; train one .*train.* shapes"):
        newest(tmp_path / "none")
    with pytest.raises(RunError, match=r"no run with dalle\.safetensors"):
        newest(run.path.parent, weights="dalle")
    with pytest.raises(RunError, match=r"no captions\.json yet; .*--stage captions"):
        run.captions()

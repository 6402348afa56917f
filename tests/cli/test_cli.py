"""The doors: commands are found, options reach the run, mistakes are told in one message."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from torch import nn

from dalle_mini_impl.cli import COMMANDS, main
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.training.nonfinite import NonFiniteLoss
from tests.tiny import tiny_run

ROOT = Path(__file__).resolve().parents[2]
STAGES = "dalle_mini_impl.training.stages"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with an experiment, and stages that only note how they were called."""
    (tmp_path / "tiny.yaml").write_text("transformer: {depth: 2, width: 64}\n", encoding="utf-8")
    calls = []

    def run_stages(run, stage, resume, tensorboard, show_results):
        calls.append((run, stage, resume, tensorboard))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, STAGES, SimpleNamespace(run_stages=run_stages))
    return calls


def python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True)


def test_help_lists_the_commands_without_importing_torch(tmp_path):
    code = (
        "import sys; from dalle_mini_impl.cli import main; main(['--help'])\n"
        "print(sorted({'torch', 'datasets', 'pydantic', 'tyro'} & sys.modules.keys()))"
    )
    result = python("-c", code)
    assert result.stdout.splitlines()[-1] == "[]"
    assert all(f"  {name} " in result.stdout for name in COMMANDS)


def test_importing_the_package_takes_no_action(tmp_path):
    code = "import sys, dalle_mini_impl; assert 'torch' not in sys.modules"
    result = python("-c", code, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_version_and_unknown_commands(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dalle-mini-impl ")
    assert main(["trian"]) == 2
    assert "dalle trian: no such command; did you mean train?" in capsys.readouterr().err
    assert main(["xyz"]) == 2
    assert "there are train, sample" in capsys.readouterr().err


@pytest.mark.parametrize("door", ["train.py", "sample.py"])
def test_the_top_level_doors_lead_to_the_commands(door):
    result = python(door, "--help")
    assert result.returncode == 0
    assert door.removesuffix(".py") in result.stdout


def test_a_mistake_is_one_message_without_a_traceback():
    result = python("train.py", "configs/shape.yaml")
    assert result.returncode == 2
    assert "configs/shape.yaml: not a readable file" in result.stderr
    assert "configs/shapes.yaml" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_error_of_the_program_keeps_its_traceback(place, monkeypatch):
    def broken(*_):
        raise ValueError("a bug")

    monkeypatch.setitem(sys.modules, STAGES, SimpleNamespace(run_stages=broken))
    with pytest.raises(ValueError, match="a bug"):
        main(["train", "tiny.yaml"])


def test_a_loss_that_is_not_finite_is_one_message(place, monkeypatch, capsys):
    def diverged(*_):
        raise NonFiniteLoss("clip: the loss is not finite")

    monkeypatch.setitem(sys.modules, STAGES, SimpleNamespace(run_stages=diverged))
    assert main(["train", "tiny.yaml"]) == 2
    assert capsys.readouterr().err == "dalle train: clip: the loss is not finite\n"


def test_train_makes_the_run_and_hands_it_on(place):
    options = ["--transformer.depth", "3", "--image-tokenizer.training.steps", "100"]
    assert (
        main(["train", "tiny.yaml", *options, "--stage", "clip", "--no-resume", "--tensorboard"])
        == 0
    )
    ((run, stage, resume, tensorboard),) = place
    assert (str(run.path), stage, resume, tensorboard) == ("runs/tiny", "clip", False, True)
    saved = RunFolder.open("runs/tiny").experiment
    assert saved == run.experiment
    assert (saved.transformer.depth, saved.transformer.width) == (3, 64)
    assert saved.image_tokenizer.training.steps == 100


def test_a_run_is_continued_without_naming_its_yaml(place):
    main(["train", "tiny.yaml", "--run", "runs/other"])
    assert main(["train", "--run", "runs/other"]) == 0
    assert main(["train", "--run=runs/other", "--clip.training.steps", "5"]) == 0
    assert [str(run.path) for run, *_ in place] == ["runs/other"] * 3
    assert place[1][0].experiment.transformer.width == 64
    assert RunFolder.open("runs/other").experiment.clip.training.steps == 5


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        (["--transformer.depth", "3"], "transformer.depth", 3),
        (["--data.path", "pics"], "data.path", "pics"),
        (["--data.held-out-captions", "red", "blue"], "data.held_out_captions", ("red", "blue")),
    ],
)
def test_the_yaml_may_follow_an_option(place, options, field, value):
    assert main(["train", *options, "tiny.yaml"]) == 0
    found = place[0][0].experiment
    for part in field.split("."):
        found = getattr(found, part)
    assert found == value
    assert str(place[0][0].path) == "runs/tiny"


def test_another_image_tokenizer_may_be_asked_for(place):
    Path("other.yaml").write_text(
        "image_tokenizer: {type: fsq, levels: [5, 5], training: {batch_size: 5}}\n"
    )
    options = ["--image-tokenizer.type", "vqgan", "--image-tokenizer.code-count", "64"]
    assert main(["train", "other.yaml", *options, "--image-tokenizer.training.steps", "7"]) == 0
    tokenizer = place[0][0].experiment.image_tokenizer
    assert (tokenizer.type, tokenizer.code_count) == ("vqgan", 64)
    assert (tokenizer.training.batch_size, tokenizer.training.steps) == (5, 7)
    assert RunFolder.open("runs/other").experiment.image_tokenizer == tokenizer


def test_help_shows_the_values_of_the_yaml(place, capsys):
    with pytest.raises(SystemExit) as left:
        main(["train", "tiny.yaml", "--help"])
    assert left.value.code == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--transformer.depth INT Number of blocks. (default: 2)" in shown
    assert "--image-tokenizer.training.steps INT" in shown
    assert "--stage" in shown
    assert not place


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "CONFIG is missing"),
        (["--run", "runs/none"], "runs/none: not a run"),
        (["tiny.yaml", "--transformer.depth", "0"], "transformer.depth = '0': should be greater"),
        (["tiny.yaml", "--clip.training.steps=0"], "clip.training.steps = '0': should be greater"),
        (["tiny.yaml", "--transformer.heads", "5"], "transformer.heads = 5: does not divide"),
        (["tiny.yaml", "--data.held-out-captions", "("], "not a regular expression"),
    ],
)
def test_impossible_options_are_refused(place, capsys, arguments, complaint):
    assert main(["train", *arguments]) == 2
    assert complaint in capsys.readouterr().err
    assert not place
    assert not Path("runs").exists()


def test_a_misspelled_option_names_the_nearest(place, capsys):
    with pytest.raises(SystemExit) as left:
        main(["train", "tiny.yaml", "--transformer.dpth", "3"])
    assert left.value.code == 2
    captured = capsys.readouterr()
    assert "--transformer.depth" in captured.err + captured.out


def test_settings_of_a_finished_stage_are_kept(place, capsys):
    main(["train", "tiny.yaml"])
    run = place[0][0]
    run.save_weights("image_tokenizer", nn.Linear(1, 1).state_dict())
    width = run.experiment.image_tokenizer.width

    assert main(["train", "tiny.yaml", "--image-tokenizer.width", "192"]) == 2
    message = capsys.readouterr().err
    assert "image_tokenizer stage is finished" in message
    assert f"image_tokenizer.width was {width}, now 192" in message
    assert "another --run" in message
    assert main(["train", "tiny.yaml", "--data.held-out", "0.1"]) == 2
    assert "data.held_out was 0.05, now 0.1" in capsys.readouterr().err
    assert main(["train", "tiny.yaml", "--image-tokenizer.training.steps", "9"]) == 2
    assert RunFolder.open(run.path).experiment == run.experiment

    # What the finished stage does not depend on, or does not learn from, may change.
    accepted = ["--transformer.depth", "4", "--sampling.top-k", "9", "--data.workers", "1"]
    assert main(["train", "tiny.yaml", *accepted]) == 0
    assert RunFolder.open(run.path).experiment.transformer.depth == 4
    anew = ["--stage", "image_tokenizer", "--no-resume", "--image-tokenizer.width", "192"]
    assert main(["train", "--run", str(run.path), *anew]) == 0
    assert RunFolder.open(run.path).experiment.image_tokenizer.width == 192


def test_no_resume_lets_every_setting_change_and_removes_what_it_outdates(place):
    main(["train", "tiny.yaml"])
    run = place[0][0]
    run.record_fingerprint("abc")
    for name in ("image_tokenizer", "dalle", "clip"):
        run.save_weights(name, nn.Linear(1, 1).state_dict())
    (run.checkpoints("transformer") / "step-1").mkdir()

    assert main(["train", "--run", str(run.path), "--no-resume", "--transformer.depth", "3"]) == 0
    reopened = RunFolder.open(run.path)
    assert reopened.experiment.transformer.depth == 3
    assert reopened.fingerprint is None
    assert reopened.has_weights("image_tokenizer")
    assert reopened.has_weights("clip")
    assert not reopened.has_weights("dalle")
    assert not (run.path / "checkpoints" / "transformer").exists()
    assert place[1][1:3] == (None, False)


@pytest.mark.parametrize(("kind", "status"), [("fsq", 0), ("vqgan", 2)])
def test_previews_may_change_where_nothing_is_learnt_from_them(place, capsys, kind, status):
    options = ["tiny.yaml", "--image-tokenizer.type", kind]
    main(["train", *options])
    (place[0][0].checkpoints("image_tokenizer") / "state").touch()
    (place[0][0].checkpoints("transformer") / "state").touch()
    assert main(["train", *options, "--transformer.training.previews", "9"]) == 0
    changed = ["--transformer.training.previews", "9", "--image-tokenizer.training.previews", "9"]
    assert main(["train", *options, *changed]) == status
    assert ("previews was 4, now 9" in capsys.readouterr().err) == (status == 2)


def test_a_stage_that_was_begun_may_only_be_prolonged(place, capsys):
    main(["train", "tiny.yaml"])
    (place[0][0].checkpoints("transformer") / "state").touch()
    assert main(["train", "tiny.yaml", "--transformer.width", "128"]) == 2
    assert "transformer stage is begun" in capsys.readouterr().err
    assert main(["train", "tiny.yaml", "--transformer.training.steps", "9"]) == 0


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder with a run and with images, whole and otherwise."""
    folder = tmp_path_factory.mktemp("images")
    tiny_run(folder / "run")
    Image.effect_noise((40, 40), 50).save(folder / "whole.png")
    Image.new("L", (40, 40)).save(folder / "black.png")
    whole = (folder / "whole.png").read_bytes()
    (folder / "torn.png").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--temperature -1", "--temperature -1.0: should be greater than or equal to 0"),
        ("--num-images 0", "--num-images 0: should be greater than 0"),
        ("--candidates 0", "--candidates 0: should be greater than 0"),
        ("--top-p 0", "--top-p 0.0: should be greater than 0"),
        ("--complete whole.png --keep-rows 0", "--keep-rows 0: the code grid has 4 rows"),
        ("--complete whole.png --keep-rows 9", "--keep-rows 9: the code grid has 4 rows, keep 1"),
        ("--inpaint whole.png --mask black.png", "--mask black.png: the mask is black"),
        ("--complete run", "--complete run: a folder"),
        ("--complete torn.png", "--complete torn.png: not an image that Pillow can read"),
        ("--complete none.png", "--complete none.png: there is no such file"),
        ("--device gpu", "--device gpu: not available here; use cpu"),
    ],
)
def test_sample_refuses_what_it_cannot_do_in_one_line(
    images, monkeypatch, capsys, options, complaint
):
    monkeypatch.chdir(images)
    assert main(["sample", "a red star", "--run", "run", *options.split()]) == 2
    message = capsys.readouterr().err
    assert complaint in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        "classify whole.png --labels a b",
        "rerank a whole.png",
        "index .",
        "search a",
        "optimize a",
        "evaluate",
        "caption whole.png",
    ],
)
def test_every_command_refuses_a_device_that_is_not_there(images, monkeypatch, capsys, command):
    monkeypatch.chdir(images)
    assert main([*command.split(), "--run", "run", "--device", "gpu"]) == 2
    assert "--device gpu: not available here; use cpu" in capsys.readouterr().err


def test_sample_paints_in_the_precision_asked_for(images, monkeypatch, tmp_path):
    asked = []

    def choose(wanted, _):
        asked.append(wanted)
        return "fp32"

    monkeypatch.setattr("dalle_mini_impl.sampling.sampler.choose_precision", choose)
    monkeypatch.chdir(images)
    given = ["sample", "a red star", "--run", "run", "--device", "cpu", "--out", str(tmp_path)]
    assert main([*given, "--precision", "bf16"]) == 0
    assert set(asked) == {"bf16"}


def test_sample_paints_what_it_can(images, monkeypatch, tmp_path):
    monkeypatch.chdir(images)
    options = ["--complete", "whole.png", "--keep-rows", "1", "--out", str(tmp_path)]
    assert main(["sample", "a red star", "--run", "run", "--device", "cpu", *options]) == 0
    assert len(json.loads((tmp_path / "samples.json").read_text())["samples"]) == 2
    assert not list(tmp_path.glob(".*"))

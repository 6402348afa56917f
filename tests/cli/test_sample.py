"""`dalle sample`: images, completed images and captions; impossible options are refused."""

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dalle_mini_impl.cli import main, sample_progress
from dalle_mini_impl.data.messages import printable
from dalle_mini_impl.runs.export import export
from dalle_mini_impl.shipped import folders
from tests.tiny import tiny_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("runs") / "tiny")


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
        (
            "--complete whole.png --keep-rows 0",
            "--keep-rows 0: should be greater than or equal to 1",
        ),
        ("--complete whole.png --keep-rows 9", "--keep-rows 9: the code grid has 4 rows, keep 1"),
        ("--inpaint whole.png --mask black.png", "--mask black.png: the mask is black"),
        ("--complete run", "--complete run: a folder"),
        ("--complete torn.png", "--complete torn.png: not an image that can be read"),
        ("--complete none.png", "--complete none.png: there is no such file"),
        ("--negative ring --guidance 1", "--negative acts through guidance, which is 1 here"),
        ("--device gpu", "--device gpu: not available here; use cpu"),
    ],
)
def test_sample_refuses_what_it_cannot_do_in_one_line(
    images, monkeypatch, capsys, options, complaint
):
    monkeypatch.chdir(images)
    assert main(["sample", "a red star", "--run", "run", *options.split()]) == 2
    *progress, message = capsys.readouterr().err.splitlines()
    assert complaint in message
    assert progress in ([], ["loading the models"], ["loading the models", "sampling captions"])


def test_images_are_sampled_in_the_precision_asked_for(images, monkeypatch, tmp_path):
    asked = []

    def choose(wanted, _):
        asked.append(wanted)
        return "fp32"

    monkeypatch.setattr("dalle_mini_impl.sampling.sampler.choose_precision", choose)
    monkeypatch.chdir(images)
    given = ["sample", "a red star", "--run", "run", "--device", "cpu", "--out", str(tmp_path)]
    assert main([*given, "--precision", "bf16"]) == 0
    assert set(asked) == {"bf16"}


def test_an_image_is_completed(images, monkeypatch, tmp_path):
    monkeypatch.chdir(images)
    options = ["--complete", "whole.png", "--keep-rows", "1", "--out", str(tmp_path)]
    assert main(["sample", "a red star", "--run", "run", "--device", "cpu", *options]) == 0
    assert len(json.loads((tmp_path / "samples.json").read_text())["samples"]) == 2
    assert not list(tmp_path.glob(".*"))


def test_images_are_guided_away_from_a_negative_caption(images, monkeypatch, tmp_path):
    monkeypatch.chdir(images)
    codes = []
    for negative in ("", "a blue ring"):
        out = tmp_path / f"negative {negative}"
        options = ["--negative", negative, "--guidance", "3", "--out", str(out)]
        assert main(["sample", "a red star", "--run", "run", "--device", "cpu", *options]) == 0
        records = json.loads((out / "samples.json").read_text())["samples"]
        assert {record["negative"] for record in records} == {negative}
        codes.append([record["log_likelihood"] for record in records])
    assert codes[0] != codes[1]


def test_sample_continues_text(run, capsys):
    command = [
        "sample",
        "--continue-text",
        "a small red",
        "--run",
        str(run.path),
        "--num-captions",
        "3",
    ]
    assert main([*command, "--device", "cpu", "--top-k", "5", "--temperature", "0.8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for line in lines:
        probability, caption = line.split(maxsplit=1)
        assert float(probability) < 0
        assert caption.startswith("a small red")


def test_images_can_be_sampled_from_sampled_captions(run, capsys, tmp_path):
    command = [
        "sample",
        "--continue-text",
        "a",
        "--run",
        str(run.path),
        "--num-captions",
        "2",
        "--sample",
    ]
    assert main([*command, "--num-images", "1", "--out", str(tmp_path), "--device", "cpu"]) == 0
    sampled = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()[:2]]
    samples = json.loads((tmp_path / "samples.json").read_text())["samples"]
    captions = [printable(" ".join(sample["caption"].split())) for sample in samples]
    assert captions == sampled


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["sample", "a", "--continue-text", "a"], "give it, or captions"),
        (["sample", "a", "--sample"], "--sample needs --continue-text"),
        (["sample", "a", "--num-captions", "8"], "--num-captions needs --continue-text"),
        (["sample", "--continue-text", "a", "--negative", "b"], "--negative would do nothing; add"),
        (["sample", "--continue-text", "a", "--top-p", "0.5"], "--top-p would do nothing; add"),
        (
            ["sample", "--continue-text", "a", "--num-captions", "0"],
            "--num-captions 0: should be greater than or equal to 1",
        ),
        (["sample", "--continue-text", "a " * 40], "more tokens than the 24"),
    ],
)
def test_options_that_do_not_go_together_are_refused_in_one_line(run, capsys, command, complaint):
    assert main([*command, "--run", str(run.path)]) == 2
    *progress, message = capsys.readouterr().err.splitlines()
    assert complaint in message
    assert progress in ([], ["loading the models"], ["loading the models", "sampling captions"])


@pytest.fixture
def packaged(run, tmp_path, monkeypatch):
    """A working directory without runs, and a package that carries a model."""
    export(run, tmp_path / "package" / "pretrained" / "shapes", torch.bfloat16, {})
    monkeypatch.setattr(folders, "PACKAGE", tmp_path / "package")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def test_without_a_run_the_model_of_the_package_samples(run, packaged, capsys):
    command = ["sample", "a red star", "--candidates", "2", "--device", "cpu"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "2 images from pretrained:shapes: outputs/0001/sheet.png" in said
    assert "Train your own with `dalle train shapes`" in said
    assert json.loads(Path("outputs/0001/samples.json").read_text())["run"] == "pretrained:shapes"
    shutil.copytree(run.path, "runs/own")
    assert main([*command, "--out", "own"]) == 0
    assert "2 images from runs/own" in capsys.readouterr().out
    assert main([*command, "--out", "named", "--run", "pretrained:shapes"]) == 0
    assert "Train your own" not in capsys.readouterr().out


@pytest.mark.parametrize("command", ["evaluate", "index ."])
def test_results_are_not_kept_in_the_package(packaged, capsys, command):
    assert main([*command.split(), "--run", "pretrained:shapes", "--device", "cpu"]) == 2
    message = capsys.readouterr().err
    assert "make one with `dalle export pretrained:shapes runs/NAME`" in message


def test_a_run_is_exported_and_sampled_from(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run.path), "small.zip", "--dtype", "bfloat16"]) == 0
    assert 'Next: dalle sample "CAPTION" --run small.zip' in capsys.readouterr().out
    assert main(["export", "small.zip", "again"]) == 0
    again = Path("again", "README.md")
    assert "trained on `shapes`. Weights are stored as bfloat16" in again.read_text()
    assert "| image_tokenizer | " in again.read_text()
    assert main(["export", str(run.path), "again"]) == 2
    assert "again: exists already" in capsys.readouterr().err
    options = ["--candidates", "2", "--device", "cpu"]
    assert main(["sample", "a red star", "--run", "small.zip", *options]) == 0
    assert "2 images from small.zip" in capsys.readouterr().out


def test_samples_within_the_run_appear_in_its_report(run, tmp_path, monkeypatch):
    shutil.copytree(run.path, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    sample = ["sample", "a red star", "--run", "run", "--candidates", "2", "--num-images", "2"]
    assert main([*sample, "--out", "run/demo"]) == 0
    assert not Path("run/report.html").exists()  # Before training is over there is none.
    Path("run/report.html").write_text("old", encoding="utf-8")
    assert main([*sample, "--out", "elsewhere"]) == 0
    assert Path("run/report.html").read_text(encoding="utf-8") == "old"
    assert main([*sample, "--out", "run/demo"]) == 0
    text = Path("run/report.html").read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 2
    assert "a red star" in text


def test_the_command_says_what_it_does_before_it_loads_anything(images, monkeypatch, capsys):
    monkeypatch.chdir(images)
    monkeypatch.setitem(sys.modules, "dalle_mini_impl.pipeline", None)
    with pytest.raises(ImportError):
        main(["sample", "a red star", "--run", "run"])
    assert capsys.readouterr().err == "loading the models\n"


def test_progress_and_json_go_their_own_ways(images, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sample_progress, "EVERY", 0.0)
    monkeypatch.chdir(images)
    options = ["--run", "run", "--device", "cpu", "--out", str(tmp_path), "--json"]
    assert main(["sample", "a red star", "a blue ring", *options]) == 0
    told = capsys.readouterr()
    values = json.loads(told.out)
    kept = json.loads((tmp_path / "samples.json").read_text())["samples"]
    assert values["samples"] == kept
    assert values["folder"] == str(tmp_path)
    assert told.err.splitlines()[:3] == [
        "loading the models",
        "sampling for caption 1 of 2",
        "sampling for caption 1 of 2: 25%",
    ]
    assert "sampling for caption 2 of 2: 100%" in told.err


def test_a_quiet_command_prints_where_the_images_are(images, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(images)
    options = ["--run", "run", "--device", "cpu", "--out", str(tmp_path), "--quiet"]
    assert main(["sample", "a red star", "--num-images", "1", *options]) == 0
    assert capsys.readouterr() == (f"1 image from run: {tmp_path / 'sheet.png'}\n", "")


def test_captions_are_printed_as_json(run, capsys):
    options = ["--run", str(run.path), "--num-captions", "2", "--device", "cpu", "--json"]
    assert main(["sample", "--continue-text", "a small", *options]) == 0
    captions = json.loads(capsys.readouterr().out)["captions"]
    assert [caption["caption"].startswith("a small") for caption in captions] == [True, True]
    assert all(caption["log_probability"] < 0 for caption in captions)


def test_on_a_terminal_progress_is_one_line_that_is_cleared(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with sample_progress.SampleProgress() as progress:
        progress.begin("sampling")
        progress.sampled(4, 16)
    clear = sample_progress.CLEAR_LINE
    assert terminal.getvalue() == f"{clear}sampling …{clear}sampling: 25% …{clear}"


def test_a_file_is_sampled_again_byte_for_byte(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = ["a red star", "a blue ring", "--negative", "a heart", "--seed", "4"]
    settings = ["--guidance", "1.7", "--top-k", "9", "--precision", "fp32", "--device", "cpu"]
    assert main(["sample", *given, *settings, "--run", str(run.path)]) == 0
    file = tmp_path / "outputs/0001/01-01.png"
    entry = json.loads((tmp_path / "outputs/0001/samples.json").read_text())["samples"][3]
    assert entry["file"] == file.name
    assert entry["sampling"]["guidance"] == 1.7
    assert entry["origin"]["dalle"] == run.weights_hash("dalle")
    assert len(entry["codes"]) == 16
    assert main(["sample", "--again", str(file), "--device", "cpu"]) == 0
    assert "the same image, pixel by pixel" in capsys.readouterr().out
    again = tmp_path / "outputs/0002"
    assert (again / "00-00.png").read_bytes() == file.read_bytes()
    assert json.loads((again / "samples.json").read_text())["samples"] == [
        {**entry, "file": "00-00.png"}
    ]
    assert main(["sample", "--again", str(file), "--device", "cpu", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["samples"] == [{**entry, "file": "00-00.png"}]
    assert "the same image" in told.err


def test_what_cannot_be_sampled_again_is_refused_in_one_line(
    images, run, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    options = ["--run", str(run.path), "--device", "cpu", "--precision", "fp32"]
    assert main(["sample", "a red star", "--num-images", "1", *options]) == 0
    file = "outputs/0001/00-00.png"
    other = tiny_run(tmp_path / "other")
    other.save_weights("clip", {})
    gone = json.loads((tmp_path / "outputs/0001/samples.json").read_text())["samples"][0]
    gone["origin"] |= {"run": "//nowhere/share", "dalle": "0" * 32}
    info = PngInfo()
    record = {key: gone[key] for key in gone if key not in ("file", "repeats", "same_as")}
    info.add_text("dalle", json.dumps(record))
    Image.new("RGB", (32, 32)).save("gone.png", pnginfo=info)
    for command, complaint in [
        (["--again", str(images / "whole.png")], "whole.png: no record of how it was sampled"),
        (["--again", str(images / "torn.png")], "torn.png: not an image that can be read"),
        (["--again", file, "--guidance", "3"], "leave out --guidance"),
        (["--again", file, "--seed", "3", "--complete", file], "leave out --complete and --seed"),
        (["--again", file, "a blue ring"], "--again takes the caption from the file"),
        (["--again", file, "--run", "other"], f"{file}: a record of other weights than other has"),
        (["--again", "gone.png"], "no run here has its weights: name the run with --run"),
    ]:
        capsys.readouterr()
        assert main(["sample", *command]) == 2
        *progress, message = capsys.readouterr().err.splitlines()
        assert complaint in message
        assert progress in ([], ["loading the models"])

"""`dalle optimize`: images, film and metrics are written; impossible options are refused."""

import json
import shutil

import pytest
import torch
from PIL import Image

from dalle_mini_impl.cli import optimize as command
from dalle_mini_impl.cli.optimize_output import FRAMES, clear_frames
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.runs.loading import load_image_tokenizer
from dalle_mini_impl.vqgan_clip.prompts import PromptScore
from tests.color_run import color_run, patch


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return color_run(tmp_path_factory.mktemp("runs") / "colors")


SMALL = ("--steps", "6", "--cutouts.count", "4", "--film.every", "3", "--device", "cpu")


def test_the_command_writes_images_and_metrics(run, tmp_path, capsys):
    out = tmp_path / "out"
    command.main(
        ["a picture of a red", "--prompt", "a picture of a blue:-0.5", "--num-images", "2",
         "--run", str(run.path), "--out", str(out), "--film.zoom", "1.1", *SMALL]
    )  # fmt: skip
    result = json.loads((out / "result.json").read_text())
    assert [image["file"] for image in result["images"]] == ["image.png", "image-01.png"]
    values = [image["value"]["best"] for image in result["images"]]
    assert values == sorted(values, reverse=True)
    assert all(p["value"]["best"] >= p["value"]["start"] for p in result["images"])
    assert len(result["history"]) == 7
    assert not result["interrupted"]
    for name in ("image.png", "sheet.png", "preview.png", "loss.png", "film.webp"):
        Image.open(out / name).load()
    assert [f.name for f in sorted((out / "frames").iterdir())] == [
        "00000.png", "00003.png", "00006.png", "frames.json",
    ]  # fmt: skip
    codes = torch.tensor([result["images"][0]["codes"]])
    decoded = load_image_tokenizer(run).decode(codes)
    written = torch.tensor(list(Image.open(out / "image.png").tobytes())).view(32, 32, 3)
    torch.testing.assert_close(
        written.permute(2, 0, 1) / 255, decoded[0], atol=1.5 / 255, rtol=0, check_dtype=False
    )
    printed = capsys.readouterr().out
    assert "step 6/6" in printed
    first = result["images"][0]
    value, cosine = first["value"], first["clip_score"]
    assert f"with the text {cosine['start']:.3f}, then {cosine['best']:.3f}" in printed
    chosen = f"chosen by score less penalties: {value['start']:.4f} at the start, "
    assert f"{chosen}{value['best']:.4f} at step {first['step']}" in printed
    assert f"chosen by {result['history'][-1]['value']:.4f}" in printed
    assert value["best"] < first["score"]["best"]  # The prior's cost is part of it.


def test_with_the_sign_of_its_score_flipped_the_command_does_not_improve(
    run, tmp_path, monkeypatch
):
    def cosines() -> tuple[float, float]:
        command.main(
            ["a picture of a red", "--prior", "0", "--steps", "20", "--cutouts.count", "4",
             "--film.format", "none", "--run", str(run.path), "--out", str(tmp_path)]
        )  # fmt: skip
        (image,) = json.loads((tmp_path / "result.json").read_text())["images"]
        return image["clip_score"]["start"], image["clip_score"]["best"]

    start, best = cosines()
    assert best > start + 0.05
    score = PromptScore.__call__
    monkeypatch.setattr(PromptScore, "__call__", lambda self, pixels: -score(self, pixels))
    start, best = cosines()
    assert best < start


@pytest.mark.parametrize(
    "options",
    [
        ["--start", "noise"],
        ["--start", "solid", "--color", "#ff8800"],
        ["--start", "sample"],
        ["--init", "IMAGE", "--image-prompt", "IMAGE:2"],
    ],
)
def test_every_start_gives_an_image(run, tmp_path, options):
    patch("green").save(tmp_path / "green.png")
    options = [option.replace("IMAGE", str(tmp_path / "green.png")) for option in options]
    given = ["a picture of a red", "--run", str(run.path), "--out", str(tmp_path / "out")]
    command.main([*given, *SMALL, "--film.format", "none", *options])
    assert (tmp_path / "out" / "image.png").is_file()


def test_refining_starts_from_the_best_candidate_and_never_gets_worse(run, tmp_path):
    text = "a picture of a red"
    options = ["--run", str(run.path), "--out", str(tmp_path), *SMALL, "--prior", "0"]
    command.main([text, "--refine", *options, "--nearness", "0"])
    result = json.loads((tmp_path / "result.json").read_text())
    (image,) = result["images"]
    best = TextToImage.from_pretrained(run, "cpu")(text, candidates=4, num_images=1)[0]
    assert image["clip_score"]["start"] == pytest.approx(best.clip_score, abs=0.02)
    assert image["score"]["best"] >= image["score"]["start"]
    assert result["arguments"]["settings"]["learning_rate"] == 0.03


def test_only_frames_that_an_optimization_listed_are_deleted(tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    for name in ("mine.png", "00010.png", "00020.png", "notes.txt"):
        (frames / name).write_text("an image")
    (tmp_path / "1.png").write_text("an image")
    clear_frames(frames)
    assert len(list(frames.iterdir())) == 4
    for damaged in ("{", "3", '[["a"], 4]'):
        (frames / FRAMES).write_text(damaged)
        clear_frames(frames)
    (frames / FRAMES).write_text('["00010.png", "mine.png", "../1.png", "00030.png"]')
    clear_frames(frames)
    assert sorted(file.name for file in frames.iterdir()) == ["00020.png", "mine.png", "notes.txt"]
    assert (tmp_path / "1.png").exists()


def test_without_a_transformer_the_prior_is_left_out(run, tmp_path, capsys):
    bare = tmp_path / "bare"
    shutil.copytree(run.path, bare)
    (bare / "dalle.safetensors").unlink()
    out = tmp_path / "out"
    command.main(["a red", "--run", str(bare), "--out", str(out), *SMALL, "--json"])
    told = capsys.readouterr()
    assert "no transformer yet: optimizing without" in told.err
    assert json.loads(told.out)["images"] == json.loads((out / "result.json").read_text())["images"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "give a text, such as"),
        (["x", "--start", "image"], "needs --init"),
        (["x", "--init", "a.png", "--start", "noise"], "exclude each other"),
        (["x", "--refine", "--start", "noise"], "--refine starts from a sample"),
        (["--prompt", "x", "--start", "sample"], "give one before --prompt"),
        (["x", "--num-images", "0"], "--num-images 0: should be greater than or equal to 1"),
        (["x", "--prior", "-1"], "--prior -1.0: should be greater than or equal to 0"),
        (["--prompt", "x", "--prior-text"], "gives the transformer the text"),
    ],
)
def test_impossible_options_are_refused(options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        command.main(options)

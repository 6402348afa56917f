"""`dalle caption`: given, sampled and training captions, ordered for images."""

import json
import shutil

import pytest
from PIL import Image

from dalle_mini_impl.cli import main
from dalle_mini_impl.data.preparation import prepare
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.retrieval.encoder import RunClip
from tests.tiny import tiny_run

CAPTIONS = ["a red heart", "a blue star", "two green squares", "a small ring"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="module")
def model(run) -> TextToImage:
    return TextToImage.from_pretrained(run, "cpu")


@pytest.fixture
def image_file(tmp_path):
    path = tmp_path / "image.png"
    Image.effect_noise((40, 40), 80).convert("RGB").save(path)
    return path


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (
            ["caption", "IMAGE", "--candidates", "0"],
            "--candidates 0: should be greater than or equal to 1",
        ),
        (["caption", "IMAGE", "--top", "-1"], "--top -1: should be greater than or equal to 0"),
        (["caption", "IMAGE", "--captions", "a", "--candidates", "9"], "--candidates does nothing"),
        (["caption", "IMAGE", "--captions", "a", "--prefix", "a"], "give one of them"),
        (
            ["caption", "IMAGE", "--captions", "a", "--source", "training"],
            "--source does nothing with --captions",
        ),
        (["caption", "IMAGE", "--source", "training"], "training captions are not in"),
        (["caption", "IMAGE", "--prefix", "a " * 40], "--prefix: the prompt"),
    ],
)
def test_impossible_options_are_refused_in_one_line(run, image_file, capsys, command, complaint):
    command = [str(image_file) if part == "IMAGE" else part for part in command]
    assert main([*command, "--run", str(run.path)]) == 2
    message = capsys.readouterr().err
    assert complaint in message
    assert message.count("\n") == 1


def test_the_caption_command_ranks_what_it_is_given(run, model, image_file, capsys):
    given = ["caption", str(image_file), "--captions", *CAPTIONS, "--run", str(run.path)]
    assert main([*given, "--json", "--top", "2"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["images"]
    expected = model.rank_captions(Image.open(image_file), CAPTIONS)[:2]
    assert [c["caption"] for c in answer["captions"]] == [r.caption for r in expected]
    assert main(given) == 0
    table = capsys.readouterr().out
    assert "a red heart" in table
    assert "clip score" in table


def test_candidates_are_sampled_or_taken_from_training(run, image_file, capsys):
    command = ["caption", str(image_file), "--run", str(run.path), "--json", "--candidates", "6"]

    def found(*options: str) -> list[str]:
        assert main([*command, *options]) == 0
        (answer,) = json.loads(capsys.readouterr().out)["images"]
        return [caption["caption"] for caption in answer["captions"]]

    assert all(caption.startswith("a small") for caption in found("--prefix", "a small"))
    store = prepare(run.experiment.data, "train", run.cache / "images", lambda _: None)
    known = {text for captions in store.captions for text in captions}
    trained = found("--source", "training", "--prefix", "a ")
    assert len(trained) == 6
    assert set(trained) <= known


def test_damaged_training_captions_are_refused_with_the_mend(run, image_file, capsys, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    store = prepare(run.experiment.data, "train", copy / "cache" / "images", lambda _: None)
    (store.folder / "examples.jsonl").write_text("")
    assert main(["caption", str(image_file), "--source", "training", "--run", str(copy)]) == 2
    assert "differ from their digest; use --source model" in capsys.readouterr().err


def test_training_captions_that_clip_finds_closest_are_ranked(run, model, image_file, capsys):
    store = prepare(run.experiment.data, "train", run.cache / "images", lambda _: None)
    known = sorted({text for captions in store.captions for text in captions if text})
    clip = RunClip(model.clip, model.captions)
    cosines = clip.encode_texts(known) @ clip.encode_images([Image.open(image_file)])[0]
    command = ["caption", str(image_file), "--run", str(run.path), "--json", "--source", "training"]
    assert main([*command, "--candidates", "3"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["images"]
    expected = {known[row] for row in cosines.topk(3).indices.tolist()}
    assert {caption["caption"] for caption in answer["captions"]} == expected


def test_training_captions_are_embedded_once_for_all_images(run, image_file, capsys, monkeypatch):
    prepare(run.experiment.data, "train", run.cache / "images", lambda _: None)
    embedded = []
    original = RunClip.encode_texts

    def counting(self, texts):
        embedded.append(len(texts))
        return original(self, texts)

    monkeypatch.setattr(RunClip, "encode_texts", counting)
    Image.new("RGB", (40, 40), "red").save(image_file.with_name("red.png"))
    command = [
        "caption",
        str(image_file.parent),
        "--run",
        str(run.path),
        "--json",
        "--candidates",
        "3",
    ]
    assert main([*command, "--source", "training"]) == 0
    assert len(json.loads(capsys.readouterr().out)["images"]) == 2
    assert len(embedded) == 1

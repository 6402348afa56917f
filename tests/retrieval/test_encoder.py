"""Ranking any images for a caption."""

import json

import pytest
import torch
from PIL import Image

from dalle_mini_impl.cli import rerank as command
from dalle_mini_impl.images import to_tensor
from dalle_mini_impl.retrieval.encoder import RunClip, rerank
from dalle_mini_impl.runs.loading import load_clip
from tests.color_run import COLORS, color_run, patch


@pytest.mark.parametrize("wanted", list(COLORS))
def test_the_image_that_fits_comes_first(run, wanted):
    clip = RunClip.from_run(run, "cpu")
    images = [patch(name) for name in COLORS]
    ranked = rerank(clip, f"a picture of a {wanted}", images)
    assert list(COLORS)[ranked[0].index] == wanted
    assert sorted(r.index for r in ranked) == [0, 1, 2, 3]
    scores = [r.score for r in ranked]
    assert scores == sorted(scores, reverse=True)
    assert all(-1.001 <= score <= 1.001 for score in scores)


def test_a_clip_of_shuffled_captions_does_not_rank(tmp_path):
    clip = RunClip.from_run(color_run(tmp_path / "shuffled", shuffled=True), "cpu")
    images = [patch(name) for name in COLORS]
    names = list(COLORS)
    right = sum(
        names[rerank(clip, f"a picture of a {wanted}", images)[0].index] == wanted
        for wanted in names
    )
    assert right <= 2


def test_vectors_equal_the_models_for_any_batch(run):
    clip = RunClip.from_run(run, "cpu")
    images = [Image.new("RGBA", (50, 30), (i, 90, 200, 255)) for i in range(70)]
    vectors = clip.encode_images(images)
    model = load_clip(run, run.captions())
    expected = model.encode_image(to_tensor(images, 32))
    torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(clip.encode_images(to_tensor(images, 32)), vectors)
    torch.testing.assert_close(clip.encode_images(images[3:4]), vectors[3:4])
    assert clip.encode_texts(["red"] * 65).norm(dim=-1).sub(1).abs().max() < 1e-5


def test_stored_vectors_are_keyed_by_the_weights(run, tmp_path):
    other = color_run(tmp_path / "other", shuffled=True)
    assert RunClip.from_run(run, "cpu").key == RunClip.from_run(run.path, "cpu").key
    assert RunClip.from_run(run, "cpu").key != RunClip.from_run(other, "cpu").key


def test_the_command_ranks_and_shows(run, tmp_path, capsys):
    files = [tmp_path / f"{name}.png" for name in COLORS]
    for file in files:
        patch(file.stem).save(file)
    options = ["--run", str(run.path), "--device", "cpu"]
    sheet = tmp_path / "sheet.png"
    given = ["a picture of a green", *map(str, files), *options]
    command.main([*given, "--json", "--sheet", str(sheet)])
    first = json.loads(capsys.readouterr().out)["images"][0]
    assert first["image"] == str(tmp_path / "green.png")
    with Image.open(sheet) as opened:
        assert opened.width > 100
    command.main(given)
    lines = capsys.readouterr().out
    assert "image" in lines
    assert "score" in lines

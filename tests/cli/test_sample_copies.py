"""What `dalle sample` shows and says of near copies."""

import json

import pytest
from PIL import Image

from dalle_mini_impl.cli import main
from dalle_mini_impl.images import MARK_COLOR
from tests.copied import train_on
from tests.tiny import tiny_run

FAR = [[15] * 16, [3] * 16]


@pytest.fixture
def run(tmp_path):
    return tiny_run(tmp_path / "run")


def sampled(run, capsys, *options):
    """The images in samples.json, whether the sheet has marks, and what was printed."""
    out = run.path.parent / "out"
    defaults = ["--run", str(run.path), "--out", str(out), "--compile", "off"]
    assert main(["sample", "a red star", *defaults, *options]) == 0
    images = json.loads((out / "samples.json").read_text(encoding="utf-8"))["samples"]
    with Image.open(out / "sheet.png") as sheet:
        red = tuple(int(MARK_COLOR[at : at + 2], 16) for at in (1, 3, 5))
        marked = any(color == red for _, color in sheet.getcolors(2**20))
    return images, marked, capsys.readouterr().out


def test_copies_of_training_images_are_marked(run, capsys):
    images, marked, printed = sampled(run, capsys)
    assert [image["nearest"] for image in images] == [None, None]
    assert not marked
    assert "near cop" not in printed
    train_on(run, [*FAR, images[0]["codes"]])
    images, marked, printed = sampled(run, capsys)
    assert [image["nearest"]["near_copy"] for image in images] == [True, False]
    assert images[0]["nearest"]["image"] == 2
    assert marked
    assert "1 of 2 images is a near copy of a training image, marked" in printed


def test_copies_of_training_images_are_avoided(run, capsys):
    (best, second), _, _ = sampled(run, capsys)
    train_on(run, [*FAR, best["codes"]])
    images, marked, printed = sampled(run, capsys, "--avoid-copies")
    assert images[0]["codes"] == second["codes"]
    assert not marked
    assert "near cop" not in printed


def test_all_copies_are_shown_with_one_line_that_says_so(run, capsys):
    all_of_them, _, _ = sampled(run, capsys, "--num-images", "4")
    own = [image["codes"] for image in all_of_them]
    train_on(run, own)
    images, marked, printed = sampled(run, capsys, "--avoid-copies")
    assert [image["codes"] for image in images] == own[:2]
    assert marked
    assert "'a red star': all 4 candidates are near copies of training images" in printed
    train_on(run, own[:3])
    images, _, printed = sampled(run, capsys, "--avoid-copies")
    assert [image["codes"] for image in images] == [own[3], own[0]]
    assert "only 1 of 4 candidates is not a near copy of training images" in printed


def test_without_a_code_cache_there_is_nothing_to_avoid(run, capsys):
    _, marked, printed = sampled(run, capsys, "--avoid-copies")
    assert not marked
    assert "has no codes of its training images" in printed


def test_how_many_candidates_were_the_same_is_told(run, capsys):
    images, _, printed = sampled(run, capsys)
    assert [image["repeats"] for image in images] == [0, 0]
    assert "near cop" not in printed
    images, marked, printed = sampled(run, capsys, "--temperature", "0")
    assert [(image["repeats"], image["same_as"]) for image in images] == [(3, None), (0, 0)]
    assert "3 of 4 candidates were near copies of images shown" in printed
    assert marked


def test_again_takes_no_wish_to_avoid_copies(run, capsys):
    sampled(run, capsys)
    file = str(run.path.parent / "out" / "00-00.png")
    assert main(["sample", "--again", file, "--avoid-copies"]) == 2
    assert "leave out --avoid-copies" in capsys.readouterr().err
    assert main(["sample", "--continue-text", "a", "--avoid-copies"]) == 2
    assert "--avoid-copies would do nothing" in capsys.readouterr().err

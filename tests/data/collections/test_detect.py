"""A path is recognized as what it is, or refused with what was found there."""

from pathlib import Path

import datasets
import pytest

from dalle_mini_impl.data.collections.detect import DataError
from dalle_mini_impl.data.collections.files import expand_braces
from tests.data.collections.colored_squares import (
    COLORS,
    EXPECTED,
    captions,
    examples,
    made_images,
    parquet,
    write_table,
)


def test_braces():
    assert expand_braces("a-{08..10}-{x,y}") == [
        f"a-{number}-{letter}" for number in ("08", "09", "10") for letter in "xy"
    ]


def test_one_table_beside_images_is_found(tmp_path):
    made_images(tmp_path / "images")
    rows = [(f"images/{color}.png", f"a {color} square") for color in COLORS]
    write_table(tmp_path / "captions.csv", ("file", "caption"), rows)
    assert captions(examples(tmp_path)) == EXPECTED


def test_files_named_for_splits(tmp_path):
    parquet(tmp_path / "train-0.parquet", COLORS[:3])
    parquet(tmp_path / "test-0.parquet", COLORS[3:])
    train, validation = (examples(tmp_path, split) for split in ("train", "validation"))
    assert [e.captions[0] for e in train] == ["a red square", "a green square", "a blue square"]
    assert [e.captions[0] for e in validation] == [
        "a white square",
        "a black square",
        "a orange square",
    ]


def test_folders_named_for_splits(tmp_path):
    made_images(tmp_path / "train", COLORS[:4])
    made_images(tmp_path / "validation", COLORS[4:])
    assert len(examples(tmp_path)) == 4
    assert {e.key for e in examples(tmp_path, "validation")} == {
        "validation/black.png",
        "validation/orange.png",
    }


@pytest.mark.parametrize("path", ["my_images", "my.images", "hub:", "hub:a/b/c"])
def test_a_mistyped_local_path_is_refused_without_asking_the_hub(path, tmp_path, monkeypatch):
    def load_dataset(*arguments, **options):
        raise AssertionError("asked the Hub")

    monkeypatch.chdir(tmp_path)  # a reader of the README may have a folder of that name
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=rf"'{path}' .*Accepted: shapes; panels;.*hub:name"):
        examples(path)


def write(path: Path) -> Path:
    path.write_bytes(b"not what the ending says")
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "nothing.csv", "does not exist"),
        (lambda p: p / "*.tar", "matches no file"),
        (lambda p: p, "folder that holds nothing"),
        (lambda p: write(p / "a.zip"), "Unpack it"),
        (lambda p: write(p / "a.docx"), "is a .docx file"),
        (lambda p: write(p / "a.png"), "is one image"),
        (lambda p: write(p / "notes.md").parent, r"holds 1 file \(.md\)"),
        (lambda p: write(p / "a.parquet"), "could not be read as parquet"),
        (lambda p: write(p / "a.tar"), "could not be read as webdataset"),
        (lambda p: (write(p / "a.tar"), write(p / "b.png"))[0].parent, "more than one kind"),
        (lambda p: (write(p / "a.tar"), write(p / "a.csv"))[0].parent / "a.*", "mixes kinds"),
    ],
)
def test_wrong_paths_name_what_was_found(tmp_path, make, message):
    with pytest.raises(DataError, match=message):
        examples(make(tmp_path))

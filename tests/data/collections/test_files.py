"""Which files a folder, a pattern or braces stand for, however they are linked and named."""

import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from dalle_mini_impl.data.check import check
from dalle_mini_impl.data.collections.detect import DataError, detect
from dalle_mini_impl.data.collections.files import expand_braces, walk_files
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.preparation import prepare
from dalle_mini_impl.data.sources import open_source
from tests.data.collections.colored_squares import COLORS, examples, made_images, write_table

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without links")


def numbered(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (8, 8), (number, 2 * number, 7)).save(folder / f"{number}.png")
    return folder


def test_a_folder_counts_once_however_it_is_linked(tmp_path):
    folder = numbered(tmp_path / "in", 30)
    for name, target in {
        "me": ".",
        "a-link": "deep",
        "up": "..",
        "top": "/",
        "self": "self",
    }.items():
        (folder / name).symlink_to(target)
    numbered(folder / "deep", 3)
    numbered(tmp_path / "elsewhere", 2)
    (folder / "deep/other").symlink_to(tmp_path / "elsewhere")
    keys = [e.key for e in examples(folder)]
    assert len(keys) == len(set(keys)) == 35
    assert {key for key in keys if "/" in key} == {
        *(f"deep/{i}.png" for i in range(3)),
        *(f"deep/other/{i}.png" for i in range(2)),
    }
    assert len(detect(f"{folder}/**/*.png").files) == 33
    assert len(detect(f"{folder}/**").files) == 33
    assert len(detect(f"{folder}/*.png").files) == 30


def test_links_to_images_do_not_stand_in_both_splits(tmp_path):
    folder = numbered(tmp_path / "in", 40)
    for number in range(40):
        (folder / f"again-{number}.png").symlink_to(f"{number}.png")
    config = DataConfig(path=str(folder), image_size=8, held_out=0.3)
    said: list[str] = []
    train = prepare(config, "train", tmp_path / "c", said.append)
    validation = prepare(config, "validation", tmp_path / "c", said.append)
    assert len(validation) > 0
    assert not {i.tobytes() for i in train.images} & {i.tobytes() for i in validation.images}
    assert f"left out {train.counts['copies']} that have the pixels of" in said[-2]


def test_what_is_no_regular_file_is_counted_or_left_out(tmp_path):
    made_images(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "table.csv")
    os.mkfifo(tmp_path / "red.txt")
    (tmp_path / "broken.png").symlink_to("nowhere")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    config = DataConfig(path=str(tmp_path), image_size=8, held_out=0, max_unreadable=0.5)
    report = check(config)
    assert sorted(report.unreadable) == [
        "broken.png: no such file",
        "pipe.png: not a regular file",
        "zero.png: not a regular file",
    ]
    assert len(open_source(config, "train").fingerprint()) == 64
    assert "table.csv" not in [file.name for file in walk_files(tmp_path)]


def test_names_that_are_no_paths_in_a_table(tmp_path):
    made_images(tmp_path / "images", COLORS[:2])
    rows = [("images/red.png", "red"), ("images/green.png", "green")]
    rows += [
        ("a\0b.png", "nul"),
        ("x" * 5000 + ".png", "long"),
        ("/dev/zero", "zero"),
        (".", "here"),
    ]
    table = write_table(tmp_path / "t.jsonl", ("file", "text"), rows)
    config = DataConfig(path=str(table), image_size=8, held_out=0, held_out_captions=("green",))
    report = check(config)
    assert report.counts == {"train": 5, "validation": 0, "held_out": 1}
    reasons = sorted(line.partition(": ")[2] for line in report.unreadable)
    assert reasons[0].startswith("[Errno 36] File name too long")
    assert reasons[1:] == ["embedded null byte", "not a file", "not a regular file"]
    assert len(open_source(config, "train").fingerprint()) == 64


@pytest.mark.skipif(sys.platform == "darwin", reason="names are Unicode there")
def test_names_that_are_not_unicode(tmp_path):
    for name in (b"caf\xe9.png", "grün.png".encode()):
        file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        Image.new("RGB", (8, 8), "red").save(file)
        file.with_suffix(".txt").write_bytes(b"a caf\xe9")
    config = DataConfig(path=str(tmp_path), image_size=8, held_out=0)
    store = prepare(config, "train", tmp_path / ".cache")
    assert sorted(store.keys) == ["caf\\udce9.png", "grün.png"]
    assert store.captions == [("a café",), ("a café",)]


@pytest.mark.parametrize("pattern", ["{0..999999999}", "{0..9}" * 9, "{a,b}" * 20, "{9..1}"])
def test_braces_stand_for_a_bounded_number_of_names(pattern):
    with pytest.raises(ValueError, match=r"its braces stand for [0-9,]+ names"):
        expand_braces(pattern)
    for path in (f"/nowhere/{pattern}.tar", f"http://localhost/{pattern}.tar"):
        with pytest.raises(DataError, match=r"its braces stand for .*; name fewer files"):
            detect(path)


@pytest.mark.parametrize("path", ["", "a\0b", "x" * 5000, "x/" * 3000, "{" + "9" * 4500 + "..1}"])
def test_what_is_no_path_is_refused_in_a_short_line(path):
    with pytest.raises(DataError, match=r"data\.path .* is no path \([0-9,]+ characters\)"):
        detect(path)


def test_a_name_too_long_for_the_system_does_not_exist():
    with pytest.raises(DataError, match="does not exist"):
        detect("x" * 1000)

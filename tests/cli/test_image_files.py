"""The commands around a CLIP open images one by one and leave the unreadable ones out."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dalle_mini_impl.cli.image_files import MAX_SHORT_SIDE, open_images
from dalle_mini_impl.config import ConfigError


def save(file: Path, size: tuple[int, int] = (30, 20), mode: str = "RGB") -> Path:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(file)
    return file


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_no_file_stays_open(tmp_path):
    for number in range(20):
        save(tmp_path / f"{number:02d}.png")
    before = len(os.listdir("/proc/self/fd"))
    images = open_images([tmp_path])
    assert len(os.listdir("/proc/self/fd")) == before
    assert list(images) == [str(tmp_path / f"{number:02d}.png") for number in range(20)]
    with Image.open(tmp_path / "00.png") as opened:
        assert images[str(tmp_path / "00.png")].tobytes() == opened.tobytes()


def test_unreadable_images_are_skipped_counted_and_named(tmp_path, capsys):
    good = save(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:300])
    assert list(open_images([tmp_path, tmp_path / "none.png"])) == [str(good)]
    said = capsys.readouterr()
    assert said.out == ""
    assert "skipped 3 unreadable of 4 images" in said.err
    for name in ("broken.png", "cut.png", "none.png: no such file"):
        assert name in said.err


def test_an_error_where_none_is_left(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ConfigError, match=r"none of 1 image .*broken\.png"):
        open_images([tmp_path])
    with pytest.raises(ConfigError, match="no image in an empty list"):
        open_images([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no image in .*empty"):
        open_images([tmp_path / "empty"])


def test_a_folder_with_a_table_of_captions_stands_for_its_images(tmp_path):
    file = save(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,an image\n")
    (tmp_path / "._a.png").write_bytes(b"what other systems leave behind")
    assert list(open_images([tmp_path])) == [str(file)]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_all_become_rgb_and_large_ones_smaller(tmp_path, mode):
    file = save(tmp_path / "a.png", (2 * MAX_SHORT_SIDE, MAX_SHORT_SIDE + 100), mode)
    (image,) = open_images([file]).values()
    assert image.mode == "RGB"
    assert image.size == (
        round(2 * MAX_SHORT_SIDE * MAX_SHORT_SIDE / (MAX_SHORT_SIDE + 100)),
        MAX_SHORT_SIDE,
    )

"""Images from anywhere: what is damaged, too large or no image is refused before it costs much."""

import io
import os
import socket
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dalle_mini_impl.cli.image_files import open_image, open_images
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.image_files import MAX_SCANS, open_image_file
from dalle_mini_impl.data.preparation import prepare
from dalle_mini_impl.data.sources import open_source
from dalle_mini_impl.images import to_rgb


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def announced(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header announces so many pixels."""
    png = encoded(Image.new("L", (1, 1)), "PNG")
    header = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


@pytest.fixture
def nothing_is_decoded(monkeypatch):
    def load(*arguments, **options):
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)


@pytest.mark.usefixtures("nothing_is_decoded")
def test_an_image_over_the_budget_is_refused_before_it_is_decoded():
    with pytest.raises(ValueError, match=r"^8,001 × 8,000 pixels are more than 64 megapixels$"):
        open_image_file(announced(8001, 8000))
    with pytest.raises(ValueError, match="more than 178 megapixels"):
        open_image_file(announced(20_000, 20_000), max_megapixels=178.0)
    with pytest.raises(AssertionError, match="decoded"):
        open_image_file(announced(8000, 8000))


@pytest.mark.usefixtures("nothing_is_decoded")
def test_webp_counts_twice_because_its_decoder_holds_two_images():
    webp = encoded(Image.new("L", (300, 300)), "WEBP", lossless=True)
    with pytest.raises(ValueError, match=r"more than 0\.1 megapixels, and WEBP counts 2 times"):
        open_image_file(webp, max_megapixels=0.1)


@pytest.mark.usefixtures("nothing_is_decoded")
def test_a_small_tiff_of_huge_tiles_is_refused():
    tiff = encoded(Image.new("L", (16, 16)), "TIFF", tiffinfo={65000: 60_000, 65001: 60_000})
    for number, tag in ((65000, 322), (65001, 323)):  # Pillow writes no tiles itself
        tiff = tiff.replace(struct.pack("<H", number), struct.pack("<H", tag))
    with pytest.raises(ValueError, match="60,000 × 60,000 pixels are more than 64 megapixels"):
        open_image_file(tiff)


def test_a_jpeg_of_many_scans_is_refused():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
    jpeg = encoded(Image.fromarray(pixels), "JPEG", progressive=True)
    assert open_image_file(jpeg).size == (16, 16)
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    with pytest.raises(ValueError, match=r"progressive JPEG of 1\d\d scans"):
        open_image_file(jpeg[:-2] + MAX_SCANS * last + jpeg[-2:])


def test_a_large_jpeg_is_decoded_small():
    jpeg = encoded(Image.new("RGB", (1600, 800)), "JPEG")
    assert open_image_file(jpeg, side=50).size == (200, 100)
    assert open_image_file(jpeg).size == (1600, 800)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "PPM", "TIFF"])
def test_the_usual_formats_are_read(kind, tmp_path):
    image = encoded(Image.new("RGB", (20, 10), "red"), kind)
    (tmp_path / "image.png").write_bytes(image)  # content decides, whatever the name says
    for source in (image, tmp_path / "image.png", str(tmp_path / "image.png")):
        assert to_rgb(open_image_file(source)).size == (20, 10)


@pytest.mark.parametrize("kind", ["DDS", "TGA", "ICO", "PCX", "EPS", "AVIF"])
def test_other_formats_are_refused_with_those_that_are_read(kind):
    try:
        image = encoded(Image.new("RGB", (16, 16)), kind)
    except (OSError, KeyError):
        pytest.skip(f"this Pillow writes no {kind}")
    with pytest.raises(ValueError, match=r"^not a PNG, JPEG, WebP, GIF, BMP, PPM or TIFF image$"):
        open_image_file(image)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_only_regular_files_are_opened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo.png")
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.png")
        for path in ("fifo.png", "socket.png", "/dev/zero"):
            with pytest.raises(ValueError, match=r"^not a regular file$"):
                open_image_file(path)
    with pytest.raises(ConfigError, match=r"--init .*fifo\.png: not an image that can be read"):
        open_image("--init", tmp_path / "fifo.png")
    with pytest.raises(ConfigError, match=r"--init .*: a folder; name one image in it"):
        open_image("--init", tmp_path)
    with pytest.raises(ConfigError, match=r"none of 1 image can be read: .* not a regular file"):
        open_images([tmp_path / "fifo.png"])
    with pytest.raises(ConfigError, match=r"--init .*null byte"):
        open_image("--init", Path("a\0b.png"))


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deep_grays_are_not_copied_whole_as_floats(mode):
    image = Image.new(mode, (2000, 1000), 1)
    tracemalloc.start()
    try:
        to_rgb(image)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * image.width * image.height / 2


def test_rows_converted_apart_meet(monkeypatch):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (37, 20, 4), np.uint8)
    images = [Image.fromarray(pixels), Image.fromarray(pixels[..., 0].astype(np.int32) * 300)]
    whole = [to_rgb(image).tobytes() for image in images]
    monkeypatch.setattr("dalle_mini_impl.images.BAND", 90)
    assert [to_rgb(image).tobytes() for image in images] == whole


def test_images_over_the_budget_count_as_unreadable(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(4):
        Image.new("L", (20, 20), number).save(tmp_path / f"in/{number}.png")
    (tmp_path / "in/large.png").write_bytes(announced(9000, 9000))
    Image.new("L", (100, 50)).save(tmp_path / "in/wide.png")
    data = {"path": str(tmp_path / "in"), "image_size": 8, "held_out": 0, "max_unreadable": 0.5}
    said: list[str] = []
    store = prepare(DataConfig(**data), "train", tmp_path / "cache", said.append)
    assert store.counts["unreadable"] == 1
    assert "skipped 1 unreadable of 6 images: large.png: 9,000 × 9,000 pixels" in said[1]
    strict = DataConfig(**data, max_megapixels=0.004)
    assert {example.max_megapixels for example in open_source(strict, "train")} == {0.004}
    store = prepare(strict, "train", tmp_path / "cache", said.append)
    assert store.counts["unreadable"] == 2

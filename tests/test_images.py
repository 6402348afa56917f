"""Images of every mode become RGB, and tensors, contact sheets and files are made of them."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_mini_impl.images import (
    contact_sheet,
    fit,
    psnr,
    save_png,
    to_images,
    to_rgb,
    to_tensor,
)


def stored(image: Image.Image, format: str, **options) -> Image.Image:
    """The image as it comes back from a file."""
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


def pixel(image: Image.Image, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    rgb = to_rgb(image)
    assert rgb.mode == "RGB"
    return rgb.getpixel(at)


def test_transparency_becomes_white():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert pixel(clear) == (255, 255, 255)
    assert pixel(Image.new("RGBA", (4, 4), (255, 0, 0, 255))) == (255, 0, 0)
    half = pixel(Image.new("RGBA", (4, 4), (0, 0, 0, 128)))
    assert all(abs(value - 127) <= 1 for value in half)
    assert pixel(Image.new("LA", (4, 4), (0, 0))) == (255, 255, 255)
    assert pixel(Image.new("LA", (4, 4), (90, 255))) == (90, 90, 90)
    assert pixel(clear.convert("RGBa")) == (255, 255, 255)
    assert pixel(stored(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", transparency=(1, 2, 3))) == (
        255,
        255,
        255,
    )


def test_palette_with_and_without_transparency():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putdata([0, 1])
    assert pixel(stored(palette, "PNG"), (1, 0)) == (200, 100, 50)
    transparent = stored(palette, "PNG", transparency=0)
    assert transparent.mode == "P"
    assert pixel(transparent, (0, 0)) == (255, 255, 255)
    assert pixel(transparent, (1, 0)) == (200, 100, 50)


def test_one_bit_and_gray():
    bits = Image.new("1", (2, 1))
    bits.putpixel((1, 0), 1)
    assert pixel(bits, (0, 0)) == (0, 0, 0)
    assert pixel(bits, (1, 0)) == (255, 255, 255)
    assert pixel(Image.new("L", (2, 2), 77)) == (77, 77, 77)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(format):
    values = np.array([[0, 0x4040, 0x8080, 0xFFFF]], np.uint16)
    image = to_rgb(stored(Image.fromarray(values), format))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 64, 128, 255]


def test_a_dark_sixteen_bit_image_stays_dark():
    image = stored(Image.fromarray(np.full((2, 2), 257, np.uint16)), "PNG")
    assert pixel(image) == (1, 1, 1)


def test_floating_point_gray():
    assert pixel(Image.fromarray(np.full((2, 2), 0.5, np.float32))) == (128, 128, 128)
    assert pixel(Image.fromarray(np.full((2, 2), 200.0, np.float32))) == (200, 200, 200)


def test_cmyk():
    assert pixel(Image.new("CMYK", (2, 2), (0, 255, 255, 0))) == (255, 0, 0)
    red, green, blue = pixel(stored(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert red > 240
    assert green < 15
    assert blue < 15


def test_exif_orientation_turns_the_image():
    image = Image.new("RGB", (8, 4), "blue")
    image.paste("red", (0, 0, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown upright after a quarter turn clockwise
    turned = to_rgb(stored(image, "PNG", exif=exif))
    assert turned.size == (4, 8)
    assert turned.getpixel((1, 1)) == (255, 0, 0)
    assert turned.getpixel((1, 6)) == (0, 0, 255)


def test_an_image_with_damaged_exif_is_read():
    image = stored(Image.new("RGB", (4, 4), "red"), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    red, green, blue = pixel(image)
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("format", ["GIF", "WEBP"])
def test_animations_give_their_first_frame(format):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    animated = stored(
        frames[0], format, save_all=True, append_images=frames[1:], duration=100, lossless=True
    )
    assert animated.n_frames == 2
    animated.seek(1)
    assert pixel(animated) == (255, 0, 0)


def test_fit_crops_the_center():
    image = Image.new("RGB", (30, 10), "white")
    image.paste("red", (10, 0, 20, 10))
    fitted = np.asarray(fit(image, 10))
    assert fitted.shape == (10, 10, 3)
    assert (fitted == (255, 0, 0)).all()
    assert fit(Image.new("RGB", (500, 301)), 64).size == (64, 64)
    assert fit(Image.new("L", (1, 3)), 16).size == (16, 16)


def test_tensors_and_back():
    images = [Image.new("RGB", (8, 8), (0, 128, 255)), Image.new("RGBA", (16, 8), (9, 9, 9, 255))]
    pixels = to_tensor(images, 8)
    assert pixels.shape == (2, 3, 8, 8)
    assert pixels.dtype == torch.float32
    assert pixels[0, :, 0, 0].tolist() == pytest.approx([0, 128 / 255, 1])
    assert np.array_equal(np.asarray(to_images(pixels)[0]), np.asarray(images[0]))
    assert to_tensor([], 8).shape == (0, 3, 8, 8)
    wild = torch.tensor([-1.0, 2.0, float("nan")]).reshape(1, 3, 1, 1)
    assert to_images(wild)[0].getpixel((0, 0)) == (0, 255, 0)


def test_contact_sheet_shows_every_image_and_text():
    colors = ["red", "green", "blue", "black", "orange"]
    images = [Image.new("RGB", (32, 32), color) for color in colors]
    plain = contact_sheet(images, columns=3)
    found = {color for _, color in plain.getcolors(1 << 20)}
    assert {image.getpixel((0, 0)) for image in images} <= found
    captions = ["", "a", "word " * 40, "x" * 300, "ein Straße 日本語 🦄 \ud800"]
    captioned = contact_sheet(images, captions, [0.5, 1, "b", 2, 3], columns=3)
    assert captioned.height > plain.height
    below = np.asarray(captioned)[36:60]
    assert (below < 128).any(), "texts are drawn under the images"
    bare = contact_sheet(images, captions, columns=3)
    assert captioned.height > bare.height, "scores get a line of their own"


def test_contact_sheet_marks_images_in_red():
    images = [Image.new("RGB", (32, 32), "white")] * 3
    sheet = contact_sheet(images, ["a ring"] * 3, columns=3, marks=["", "a copy", ""])
    red = np.asarray(sheet)[:, :, 0] > np.asarray(sheet)[:, :, 1].astype(int) + 60
    columns = np.flatnonzero(red.any(axis=0))
    assert sheet.width / 3 <= columns.min() < columns.max() < 2 * sheet.width / 3
    assert red[:4].any(), "a frame"
    assert red[-14:].any(), "a text"
    unmarked = contact_sheet(images, ["a ring"] * 3, columns=3, marks=[""] * 3)
    assert unmarked.tobytes() == contact_sheet(images, ["a ring"] * 3, columns=3).tobytes()


def test_contact_sheet_scales_and_refuses_unequal_lists():
    assert contact_sheet([Image.new("RGB", (8, 8))], scale=4).size == (40, 40)
    with pytest.raises(ValueError, match="1 captions for 2 images"):
        contact_sheet([Image.new("RGB", (8, 8))] * 2, ["one"])
    assert contact_sheet([]).mode == "RGB"


def test_white_images_on_a_contact_sheet_have_an_edge():
    sheet = contact_sheet([Image.new("RGB", (8, 8), "white")] * 2, columns=2)
    dark = np.asarray(sheet).min(axis=2) < 255
    for left in (4, 16):  # two images, with gaps of four pixels
        assert dark[3, left : left + 8].all()
        assert dark[4:12, left - 1].all()
        assert not dark[4:12, left : left + 8].any()


def test_an_interrupted_save_png_leaves_no_partial_file(tmp_path: Path, monkeypatch):
    target = tmp_path / "new" / "image.png"
    save_png(Image.new("RGB", (4, 4), "red"), target)
    before = target.read_bytes()

    def fail(self, file, **options):
        Path(file).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_png(Image.new("RGB", (4, 4), "blue"), target)
    assert target.read_bytes() == before
    assert [file.name for file in target.parent.iterdir()] == ["image.png"]


def test_psnr_of_each_image():
    image = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.8
    other = image + torch.tensor([0.1, 0.01, 0.0])[:, None, None, None]
    assert psnr(other, image).tolist() == pytest.approx([20, 40, 100], rel=1e-3)

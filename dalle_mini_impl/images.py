"""Conversion between Pillow images and tensors, and contact sheets."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import ExifTags, Image, ImageDraw, ImageFont, ImageOps
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from dalle_mini_impl.files import atomic_write

BAND = 2**18
"""Pixels that are converted at a time."""
CAPTION_LINES = 4
MARK_COLOR = "#c81e1e"


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB, as a viewer shows it.

    Takes the first frame, applies the EXIF orientation, puts transparency on white and scales
    16-bit, 32-bit and floating-point grays to 8 bits. An image that is so already is returned.
    """
    if image.tell() != 0:
        image.seek(0)
    image = _turned(image)
    plain = image.mode == "RGB" and not image.has_transparency_data
    return image if plain else _convert(image)


def _turned(image: Image.Image) -> Image.Image:
    image.load()
    try:
        upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        return image if upright else ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data fails in many ways; the pixels are good
        return image


def _convert(image: Image.Image) -> Image.Image:
    """Converts some rows at a time: a large image is never copied whole into a wider mode."""
    deep = image.mode.startswith("I") or image.mode == "F"
    width, height = image.size
    step = max(1, BAND // width)
    boxes = [(0, top, width, min(top + step, height)) for top in range(0, height, step)]
    white = _white(image, boxes) if deep else 0.0
    rgb = Image.new("RGB", image.size)
    for box in boxes:
        rows = image.crop(box)
        rgb.paste(_eight_bits(rows, white) if deep else _on_white(rows), box)
    return rgb


def _on_white(image: Image.Image) -> Image.Image:
    image = image.convert("LA") if image.mode == "La" else image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _white(image: Image.Image, boxes: Sequence[tuple[int, int, int, int]]) -> float:
    """The value of white. I;16 is 0..65535. I and F have no fixed range, so it is inferred from
    the largest value: 1 (F only), 255 (F only), 65535 or the largest itself."""
    if image.mode.startswith("I;16"):
        return 65535.0
    largest = max(float(_finite(image.crop(box)).max(initial=0.0)) for box in boxes)
    if image.mode == "F" and largest <= 255.0:
        return 1.0 if largest <= 1.0 else 255.0
    return max(65535.0, largest)


def _eight_bits(image: Image.Image, white: float) -> Image.Image:
    """Gray of more than 8 bits in RGB."""
    levels = np.rint(np.clip(_finite(image) * (255.0 / white), 0, 255))
    return Image.fromarray(levels.astype(np.uint8)).convert("RGB")


def _finite(image: Image.Image) -> np.ndarray:
    values = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return values


def fit(image: Image.Image, size: int) -> Image.Image:
    """RGB image of size × size: the short side resized to `size`, the center cropped."""
    image = to_rgb(image)
    if image.size == (size, size):
        return image
    box = center_square(image)
    # reducing_gap shrinks very large images in two steps: faster, with no visible difference.
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)


def center_square(image: Image.Image) -> tuple[float, float, float, float]:
    """The largest square in the middle of the image: left, top, right, bottom."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def to_tensor(images: Sequence[Image.Image], size: int) -> Float[Tensor, "b 3 h w"]:
    """Images of any kind as float32 in [0, 1], each fitted to size × size."""
    if not images:
        return torch.zeros(0, 3, size, size)
    pixels = np.stack([np.asarray(fit(image, size)) for image in images])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() / 255.0


def to_uint8(pixels: Float[Tensor, "b 3 h w"]) -> UInt8[np.ndarray, "b h w 3"]:
    """Tensors in [0, 1] as 8-bit arrays; values outside are clipped, NaN becomes black."""
    levels = pixels.detach().float().nan_to_num(0.0).clamp(0.0, 1.0).mul(255.0).round()
    return levels.to("cpu", torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def to_images(pixels: Float[Tensor, "b 3 h w"]) -> list[Image.Image]:
    """Tensors in [0, 1] as RGB images; values outside are clipped, NaN becomes black."""
    return [Image.fromarray(array) for array in to_uint8(pixels)]


def psnr(
    reconstructed: Float[Tensor, "b 3 h w"], images: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, "b"]:
    """Peak signal-to-noise ratio of each image in dB, at most 100."""
    error = (reconstructed - images).square().mean(dim=(1, 2, 3)).clamp_min(1e-10)
    return -10 * error.log10()


def contact_sheet(
    images: Sequence[Image.Image],
    captions: Sequence[str] | None = None,
    scores: Sequence[str | float | int] | None = None,
    columns: int | None = None,
    scale: float | int = 1,
    marks: Sequence[str] | None = None,
) -> Image.Image:
    """All images in one RGB image, row by row, with captions and scores underneath.

    Args:
        captions: one text per image, wrapped to its width; any Unicode is accepted.
        scores: one text or number (three decimals) per image, in a line of its own.
        columns: images per row; None makes the sheet about square.
        scale: magnification of the images; whole numbers keep pixels sharp.
        marks: one text per image, in red under a red frame; none where it is empty.
    """
    for name, texts in (("captions", captions), ("scores", scores), ("marks", marks)):
        if texts is not None and len(texts) != len(images):
            raise ValueError(f"{len(texts)} {name} for {len(images)} images: give one each")
    tiles = [to_rgb(image) for image in images] or [Image.new("RGB", (1, 1), "white")]
    width = max(1, round(max(tile.width for tile in tiles) * scale))
    height = max(1, round(max(tile.height for tile in tiles) * scale))
    columns = columns or math.ceil(math.sqrt(len(tiles)))
    font = ImageFont.load_default()
    # A cell is wide enough for a few words even where the images are tiny.
    cell = max(width, 96) if captions or scores or marks else width
    notes = [_notes(i, captions, scores, font, cell) for i in range(len(tiles))]
    marked = [_wrap(mark, font, cell) for mark in marks or [""] * len(tiles)]
    line = 12
    if isinstance(font, ImageFont.FreeTypeFont):
        line = max(line, int(font.getbbox("Ág")[3]) + 2)
    gap = 4
    most = max(len(note) + len(mark) for note, mark in zip(notes, marked, strict=True))
    tall = height + (gap + line * most if most else 0)
    rows = math.ceil(len(tiles) / columns)
    size = (columns * (cell + gap) + gap, rows * (tall + gap) + gap)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    sharp = float(scale).is_integer()
    resampling = Image.Resampling.NEAREST if sharp else Image.Resampling.BICUBIC
    for index, (tile, note, mark) in enumerate(zip(tiles, notes, marked, strict=True)):
        left = gap + (index % columns) * (cell + gap)
        top = gap + (index // columns) * (tall + gap)
        shown = (max(1, round(tile.width * scale)), max(1, round(tile.height * scale)))
        if shown != tile.size:
            tile = tile.resize(shown, resampling)
        at = left + (cell - tile.width) // 2
        sheet.paste(tile, (at, top))
        # A frame in the gap shows where images on white end.
        wide = 2 if mark else 1
        edge = (at - wide, top - wide, at + tile.width + wide - 1, top + tile.height + wide - 1)
        draw.rectangle(edge, outline=MARK_COLOR if mark else "lightgray", width=wide)
        for number, text in enumerate([*note, *mark]):
            color = "black" if number < len(note) else MARK_COLOR
            draw.text((left, top + height + gap + number * line), text, fill=color, font=font)
    return sheet


def _notes(
    index: int,
    captions: Sequence[str] | None,
    scores: Sequence[str | float | int] | None,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    width: int,
) -> list[str]:
    """The lines under one image."""
    lines = _wrap(captions[index], font, width) if captions and index < len(captions) else []
    if scores and index < len(scores):
        score = scores[index]
        lines = [*lines, _printable(score if isinstance(score, str) else f"{score:.3f}", font)]
    return lines


def _printable(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if isinstance(font, ImageFont.FreeTypeFont):
        return text.encode("utf-8", "replace").decode("utf-8")
    # The bitmap font has no other characters.
    return text.encode("latin-1", "replace").decode("latin-1")


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """The text in lines no wider than `width` pixels, at most CAPTION_LINES of them."""
    lines: list[str] = []
    current = ""
    for word in _printable(text, font).split():
        joined = f"{current} {word}".strip()
        if font.getlength(joined) <= width:
            current = joined
            continue
        if current:
            lines.append(current)
        while font.getlength(word) > width and len(word) > 1:  # one word wider than the image
            cut = next(
                n
                for n in range(len(word) - 1, 0, -1)
                if n == 1 or font.getlength(word[:n]) <= width
            )
            lines.append(word[:cut])
            word = word[cut:]
        current = word
        if len(lines) > CAPTION_LINES:
            break
    if current:
        lines.append(current)
    if len(lines) > CAPTION_LINES:
        lines = [*lines[: CAPTION_LINES - 1], lines[CAPTION_LINES - 1][:-1] + "…"]
    return lines


def save_png(image: Image.Image, path: str | Path, chunks: PngInfo | None = None) -> None:
    """Write a PNG with these text chunks; a reader never sees half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=chunks)

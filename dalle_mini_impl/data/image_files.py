"""Opens images that may be damaged, or made to cost much time and memory."""

import io
import os
import stat
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from dalle_mini_impl.data.config import LARGEST_MEGAPIXELS, MAX_MEGAPIXELS

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "PPM", "TIFF")
"""What collections of images consist of. Each other decoder of Pillow is more code that a hostile
file can reach; several start other programs, or take nearly any file for theirs."""
DECODER_COPIES = {"WEBP": 2}
"""Formats whose decoder keeps several whole images; a pixel of theirs counts as so many."""
MAX_SCANS = 100
"""Each scan of a progressive JPEG goes through all pixels; encoders write about ten."""
TILE_SIDES = (322, 323)
"""TIFF's tags of the sides of a tile, which may be larger than the image."""


def open_image_file(
    source: bytes | str | Path, side: int | None = None, max_megapixels: float = MAX_MEGAPIXELS
) -> Image.Image:
    """The decoded image of a file, or of a file's bytes.

    side: a large JPEG may be decoded smaller, but not below twice this. What an image may cost is
    read from its header, before anything is decoded. Raises ValueError with the reason where it
    is refused, FileNotFoundError, and whatever else Pillow raises on a damaged file.
    """
    if not isinstance(source, bytes) and not stat.S_ISREG(os.stat(source).st_mode):
        raise ValueError("not a file" if os.path.isdir(source) else "not a regular file")
    try:
        with warnings.catch_warnings():
            # Pillow's own limit warns of what is checked below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(
                io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS
            )
    except UnidentifiedImageError:
        raise ValueError("not a PNG, JPEG, WebP, GIF, BMP, PPM or TIFF image") from None
    except Image.DecompressionBombError:
        raise ValueError(f"more than {LARGEST_MEGAPIXELS:g} megapixels") from None
    with image:  # leaving closes the file and keeps the pixels
        _check_cost(image, max_megapixels)
        if side is not None:
            image.draft("RGB", (2 * side, 2 * side))
        image.load()
    return image


def _check_cost(image: Image.Image, max_megapixels: float) -> None:
    """ValueError if the header announces more than `max_megapixels` for the decoder."""
    sides = [image.size]
    tags = getattr(image, "tag_v2", None)
    if tags is not None and all(tag in tags for tag in TILE_SIDES):
        sides.append((int(tags[TILE_SIDES[0]]), int(tags[TILE_SIDES[1]])))
    width, height = max(sides, key=lambda pair: pair[0] * pair[1])
    copies = DECODER_COPIES.get(image.format or "", 1)
    if width * height * copies > max_megapixels * 1e6:
        counts = f", and {image.format} counts {copies} times" if copies > 1 else ""
        raise ValueError(
            f"{width:,} × {height:,} pixels are more than {max_megapixels:g} megapixels{counts}"
        )
    if image.info.get("progressive") and (scans := _count_scans(image)) > MAX_SCANS:
        raise ValueError(f"a progressive JPEG of {scans:,} scans; at most {MAX_SCANS} are decoded")


def _count_scans(image: Image.Image) -> int:
    """Start-of-scan markers of an opened JPEG, which coded pixels cannot contain."""
    file = getattr(image, "fp", None)
    if file is None:
        return 0
    position = file.tell()
    file.seek(0)
    count = file.read().count(b"\xff\xda")
    file.seek(position)
    return count

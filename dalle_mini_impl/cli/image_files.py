"""Images that commands open: one that an option names, or many from files and folders."""

import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.data.collections.detect import IMAGE_SUFFIXES, suffix
from dalle_mini_impl.data.collections.files import walk_files
from dalle_mini_impl.data.collections.sample_lists import is_sheet
from dalle_mini_impl.data.messages import counted, first_names, readable

MAX_SHORT_SIDE = 512
"""Larger images are reduced to it, so that many fit into memory; no CLIP uses more pixels."""


def open_image(option: str, path: Path) -> Image.Image:
    """The loaded image at `path`; ConfigError that names the option where it cannot be read."""
    from dalle_mini_impl.data.examples import unreadable_reason
    from dalle_mini_impl.data.image_files import open_image_file

    try:
        return open_image_file(path)
    except FileNotFoundError:
        raise ConfigError(f"{option} {path}: there is no such file") from None
    except Exception as error:  # Pillow raises nearly anything on damaged files
        if path.is_dir():
            raise ConfigError(f"{option} {path}: a folder; name one image in it") from None
        reason = unreadable_reason(error)
        raise ConfigError(f"{option} {path}: not an image that can be read ({reason})") from None


def open_images(paths: Sequence[Path]) -> dict[str, Image.Image]:
    """The images by name, loaded, in RGB; a folder stands for all images in it
    but the sheets that the project wrote.

    Unreadable ones are left out, counted and named on standard error. ConfigError where no
    image is given or none can be read.
    """
    from dalle_mini_impl.data.examples import unreadable_reason

    files: list[Path] = []
    for path in paths:
        files += _images_in(path) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"no image in {', '.join(map(str, paths)) or 'an empty list'}")
    images: dict[str, Image.Image] = {}
    failures: list[str] = []
    for file in files:
        try:
            images[readable(str(file))] = _load(file)
        except Exception as error:  # Pillow raises nearly anything on damaged files
            failures.append(f"{file}: {unreadable_reason(error)}")
    named = first_names(failures)
    if not images:
        raise ConfigError(f"none of {counted(len(files), 'image')} can be read: {named}")
    if failures:
        # Standard output holds only the result, which may be JSON.
        skipped = f"skipped {len(failures):,} unreadable of {counted(len(files), 'image')}"
        print(f"{skipped}: {named}", file=sys.stderr)
    return images


def _images_in(folder: Path) -> list[Path]:
    found = walk_files(folder, irregular=IMAGE_SUFFIXES)
    return sorted(f for f in found if suffix(f.name) in IMAGE_SUFFIXES and not is_sheet(f))


def _load(file: Path) -> Image.Image:
    from dalle_mini_impl.data.image_files import open_image_file
    from dalle_mini_impl.images import to_rgb

    image = to_rgb(open_image_file(file, MAX_SHORT_SIDE))
    short = min(image.size)
    if short <= MAX_SHORT_SIDE:
        return image
    width, height = (round(length * MAX_SHORT_SIDE / short) for length in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)

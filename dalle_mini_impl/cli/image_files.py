"""What the commands around a CLIP share: opening images, and showing a table or JSON."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.table import Table

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.data.collections.detect import IMAGE_SUFFIXES, suffix

SIDE = 512
"""No CLIP looks closer: the short side of larger images is reduced to it, to hold many."""
NAMED = 5


def open_images(paths: Sequence[Path]) -> dict[str, Image.Image]:
    """The images by name, loaded, in RGB; a folder stands for all images in it.

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
            images[str(file)] = _load(file)
        except Exception as error:  # Pillow raises nearly anything on damaged files
            failures.append(f"{file}: {unreadable_reason(error)}")
    named = "; ".join(failures[:NAMED]) + ("; …" if len(failures) > NAMED else "")
    if not images:
        raise ConfigError(f"none of {len(files):,} images can be read: {named}")
    if failures:
        # Standard output is for the answer alone, which may be JSON.
        skipped = f"skipped {len(failures):,} unreadable of {len(files):,} images: {named}"
        print(skipped, file=sys.stderr)
    return images


def _images_in(folder: Path) -> list[Path]:
    found = (file for file in folder.rglob("*") if suffix(file.name) in IMAGE_SUFFIXES)
    return sorted(f for f in found if f.is_file() and not f.name.startswith("."))


def _load(file: Path) -> Image.Image:
    from dalle_mini_impl.images import to_rgb

    with Image.open(file) as opened:
        opened.draft("RGB", (2 * SIDE, 2 * SIDE))
        image = to_rgb(opened)
        # Where nothing was to convert this is still the file's own image, closed on leaving.
        image = image.copy() if image is opened else image
    short = min(image.size)
    if short <= SIDE:
        return image
    width, height = (round(length * SIDE / short) for length in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)


def show(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """A table whose columns are the keys of its rows; numbers with three decimals."""
    table = Table()
    for name in rows[0] if rows else ():
        table.add_column(name, justify="right" if _is_number(rows[0][name]) else "left")
    for row in rows:
        # Text, not markup: a file's name may hold brackets.
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else _plain(v) for v in row.values()))
    console = Console()
    # As the table's own title it would be broken into lines no wider than the table.
    console.print(title, markup=False, highlight=False)
    console.print(table)


def print_json(value: object) -> None:
    """For other programs: JSON alone on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _plain(value: Any) -> Any:
    from rich.text import Text

    return Text(str(value), overflow="fold")

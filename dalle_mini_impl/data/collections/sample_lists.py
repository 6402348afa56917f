"""The lists that `dalle sample` and `dalle optimize` write beside their images."""

import json
from pathlib import Path
from typing import Any

from dalle_mini_impl.data.messages import readable

LISTS = {"samples.json": "samples", "result.json": "images"}
"""The lists by file name, each with the key of its images."""
SHEETS = ("sheet.png", "search.png", "preview.png", "loss.png", "film.webp", "film.gif")
MAX_BYTES = 2**28
"""A larger file is no list of ours."""


def listed_images(file: Path) -> dict[Path, str] | None:
    """The images that a list names, with their captions; None if it is another kind of file.

    Only files beside the list count: a list from elsewhere cannot name others.
    """
    key = LISTS.get(file.name)
    if key is None or not file.is_file() or file.stat().st_size > MAX_BYTES:
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or "run" not in values or not isinstance(values.get(key), list):
        return None
    arguments = values.get("arguments")
    shared = arguments.get("text") if isinstance(arguments, dict) else None
    images = {}
    for entry in values[key]:
        name = entry.get("file") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not _plain(name):
            return None
        images[file.parent / name] = _text(entry.get("caption", shared))
    return images


def is_sheet(file: Path) -> bool:
    """Whether an image beside such a list shows other images, a plot or a film's frame."""
    if file.parent.name == "frames":
        return (file.parent.parent / "result.json").is_file()
    lists = (*LISTS, "search.json")
    return file.name in SHEETS and any((file.parent / name).is_file() for name in lists)


def _plain(name: str) -> bool:
    if readable(name) != name:  # half a character, from broken JSON
        return False
    return name not in ("", ".", "..") and not any(mark in name for mark in "/\\:\0")


def _text(value: Any) -> str:
    return readable(value) if isinstance(value, str) else ""

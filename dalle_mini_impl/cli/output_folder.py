"""Where sampled images go: a fresh folder, or a given one without its earlier samples."""

import os
from pathlib import Path

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.data.collections.sample_lists import listed_images
from dalle_mini_impl.runs.os_errors import shortened

OUTPUTS = Path("outputs")
LONGEST_NAME = 255
"""Bytes of a name in a path, on nearly all systems."""


def check_folder(option: str, folder: Path) -> None:
    """ConfigError unless results can be written to `folder`, which need not exist yet.

    Called before anything is loaded: what took long is not lost at its end.
    """
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in folder.parts):
        raise ConfigError(f"{option} {shortened(str(folder))}: a name in it is too long")
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise ConfigError(f"{option} {folder}: {there} is a file; name a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{option} {folder}: {there} cannot be written to; change its permissions, or name "
            "another folder"
        )


def output_folder(given: Path | None) -> Path:
    """The folder `given`, or a new one under outputs/ with the next number as its name.

    In a given folder, what an earlier command listed as its own is deleted, and nothing else.
    """
    if given is None:
        return _next_folder(OUTPUTS)
    given.mkdir(parents=True, exist_ok=True)
    clear_listed(given / "samples.json")
    return given


def clear_listed(file: Path) -> None:
    """Delete the list `file`, its sheet and the images that it names, if the project wrote it."""
    images = listed_images(file)
    if images is None:
        return
    for image in (*images, file.parent / "sheet.png"):
        if image.is_file():
            image.unlink()
    file.unlink()


def _next_folder(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    numbers = [int(each.name) for each in parent.iterdir() if each.name.isdecimal()]
    number = max(numbers, default=0) + 1
    while True:
        folder = parent / f"{number:04d}"
        try:
            folder.mkdir()
        except FileExistsError:  # another command was faster
            number += 1
        else:
            return folder

"""Where sampled images go: a fresh folder, or a given one without its earlier samples."""

from pathlib import Path

from dalle_mini_impl.data.collections.sample_lists import listed_images

OUTPUTS = Path("outputs")


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

"""Finds the run that a name means: a folder, an exported zip, or a model in the package."""

from pathlib import Path
from tempfile import TemporaryDirectory

from dalle_mini_impl.runs.archive import unpack
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.weights import RunError
from dalle_mini_impl.shipped.folders import shipped

PRETRAINED = "pretrained:"
"""Marks the name of a model in the package; needed only where a folder has the same name."""


def find_run(name: str | Path) -> RunFolder:
    """The run at a path, in a zip that `dalle export` wrote, or among the pretrained models.

    RunError if there is none.
    """
    path = Path(name)
    if str(name).startswith(PRETRAINED):
        return _pretrained(str(name).removeprefix(PRETRAINED))
    if path.is_file():
        return _unpacked(path, str(path))
    if not path.exists() and str(name) in pretrained_names():
        return _pretrained(str(name))
    return RunFolder.open(path)


def pretrained_names() -> list[str]:
    """The names of the trained models that come with the package."""
    configs = shipped("pretrained").glob("*/config.yaml")
    zips = shipped("pretrained").glob("*.zip")
    return sorted({*(config.parent.name for config in configs), *(file.stem for file in zips)})


def _pretrained(name: str) -> RunFolder:
    if name not in pretrained_names():
        there = ", ".join(pretrained_names()) or "none"
        raise RunError(f"{PRETRAINED}{name}: no such model in the package (there: {there})")
    folder = shipped("pretrained") / name
    shown = f"{PRETRAINED}{name}"
    if folder.is_dir():
        return RunFolder.open(folder, shown)
    return _unpacked(folder.with_suffix(".zip"), shown)


def _unpacked(file: Path, shown: str) -> RunFolder:
    """The run in a zip, in a temporary folder that lasts as long as this object."""
    folder = TemporaryDirectory(prefix="dalle-run-", ignore_cleanup_errors=True)
    unpack(file, Path(folder.name))
    run = RunFolder.open(folder.name, shown)
    run.unpacked_in = folder
    return run

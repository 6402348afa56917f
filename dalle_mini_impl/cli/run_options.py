"""Options that several commands share: which run, which CLIP, which device."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from dalle_mini_impl.config import ConfigError

if TYPE_CHECKING:
    from dalle_mini_impl.runs.folder import RunFolder

ClipRun = Annotated[
    Path | None,
    tyro.conf.arg(
        help="Run folder, zip or pretrained:NAME; the newest run with a CLIP under runs/ if not "
        "given."
    ),
]
OtherClip = Annotated[
    str | None,
    tyro.conf.arg(
        help="Another CLIP: transformers:NAME or open_clip:ARCHITECTURE:WEIGHTS (names or local "
        "paths)."
    ),
]
Device = Annotated[
    str | None, tyro.conf.arg(help="cpu, cuda, or mps (never tested); cuda if it is there.")
]


def open_run(path: Path | None, weights: str | None, otherwise: str = "") -> "RunFolder":
    """The run that --run names, or the newest one under runs/ that has these weights.

    otherwise: the pretrained model to take if there is no run, and if it is in the package.
    """
    from dalle_mini_impl.runs.named import find_run, pretrained_names
    from dalle_mini_impl.runs.newest import newest, runs_with

    if path is None and otherwise in pretrained_names() and not runs_with(weights):
        return find_run(otherwise)
    return find_run(path) if path else newest(weights=weights)


def refuse_read_only(run: "RunFolder", results: str) -> None:
    """ConfigError if `results` are kept in the run's folder, and the run has none of its own."""
    if run.read_only:
        raise ConfigError(
            f"--run {run.name}: {results} is kept in the run's folder; make one with "
            f"`dalle export {run.name} runs/NAME`"
        )


def check_device(name: str | None) -> None:
    """ConfigError unless tensors can be put on --device `name` here."""
    from dalle_mini_impl.precision import available_device

    try:
        available_device(name)
    except ConfigError as error:
        raise ConfigError(f"--{error}") from error

"""Options that several commands share: which run, which CLIP, which device."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from dalle_mini_impl.config import ConfigError

if TYPE_CHECKING:
    from dalle_mini_impl.runs.folder import RunFolder

ClipRun = Annotated[
    Path | None,
    tyro.conf.arg(help="Run folder; the newest run with a CLIP under runs/ if not given."),
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


def open_run(path: Path | None, weights: str | None) -> "RunFolder":
    """The run at `path`, or the newest one under runs/ that has these weights."""
    from dalle_mini_impl.runs.folder import RunFolder
    from dalle_mini_impl.runs.newest import newest

    return RunFolder.open(path) if path else newest(weights=weights)


def check_device(name: str | None) -> None:
    """ConfigError unless tensors can be put on --device `name` here."""
    from dalle_mini_impl.precision import available_device

    try:
        available_device(name)
    except ConfigError as error:
        raise ConfigError(f"--{error}") from error

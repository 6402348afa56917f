"""Options that several commands share: which run, which CLIP, which device."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from dalle_mini_impl.config import ConfigError

if TYPE_CHECKING:
    from dalle_mini_impl.runs.folder import RunFolder


def optional(default: str = "", metavar: str | None = None, help: str | None = None) -> Any:
    """An option that is None unless given; `--help` says what is then taken in its place.

    metavar: what its value is called. help: its description, if not that under the field.
    """
    hint = f"(default: {default})" if default else "(optional)"
    return tyro.conf.arg(metavar=metavar, help=help, help_behavior_hint=hint)


def required(metavar: str) -> Any:
    """Positional values of which at least one is needed; tyro would show an empty default."""
    return tyro.conf.arg(metavar=f"{metavar} ...", help_behavior_hint="(required)")


TransformerRun = Annotated[
    Path | None,
    optional(
        "the newest run with a transformer under runs/",
        "RUN",
        "Run folder, zip or pretrained:NAME.",
    ),
]
ClipRun = Annotated[
    Path | None,
    optional(
        "the newest run with a CLIP under runs/",
        "RUN",
        "Run folder, zip or pretrained:NAME.",
    ),
]
OtherClip = Annotated[
    str | None,
    optional(
        "the run's own",
        "NAME",
        "Another CLIP: transformers:NAME or open_clip:ARCHITECTURE:WEIGHTS (names or local paths).",
    ),
]
Device = Annotated[
    str | None,
    optional("cuda if it is there, else cpu", "NAME", "cpu, cuda, or mps (untested)."),
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

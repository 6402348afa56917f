"""`dalle fetch-data`: the collections that shipped configurations name, as data/NAME."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dalle_mini_impl.cli.output import OutputOptions, Result, output
from dalle_mini_impl.cli.output_folder import check_folder
from dalle_mini_impl.cli.parsing import parse_arguments
from dalle_mini_impl.cli.run_options import optional
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.files import atomic_folder


@dataclass(frozen=True)
class FetchDataArguments(OutputOptions):
    """Build a collection that shipped configurations are trained on.

    emoji: an installed Noto Color Emoji, rendered, with the names of Unicode CLDR. cifar10: from
    the Hugging Face Hub.
    """

    name: Annotated[Literal["emoji", "cifar10"], tyro.conf.Positional]
    """The collection."""
    out: Annotated[
        Path | None, optional("data/NAME, where the configurations expect it", "DIR")
    ] = None
    """A new folder for it."""
    font: Annotated[Path | None, optional("searched where fonts are installed", "FILE")] = None
    """For emoji: NotoColorEmoji.ttf."""
    names: Annotated[Path | None, optional("installed, or from unicode.org", "FILE")] = None
    """For emoji: Unicode's emoji-test.txt."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the options and build the collection."""
    arguments = parse_arguments(FetchDataArguments, argv, "dalle fetch-data")
    if arguments.name != "emoji" and (arguments.font or arguments.names):
        raise ConfigError(f"--font and --names are for emoji: {arguments.name} has no use for them")
    out = arguments.out or Path("data") / arguments.name
    if out.exists():
        raise ConfigError(f"--out {out}: exists already; delete it or name another folder")
    check_folder("--out", out.parent)
    with output(arguments) as result:
        build(arguments, out, result)


def build(arguments: FetchDataArguments, out: Path, result: Result) -> None:
    """Write the collection to `out`; half of one is never left behind."""
    from dalle_mini_impl.data.fetching.cifar10 import fetch_cifar10
    from dalle_mini_impl.data.fetching.emoji import build_emoji

    with atomic_folder(out) as building:
        if arguments.name == "emoji":
            count = build_emoji(building, arguments.font, arguments.names)
        else:
            count = fetch_cifar10(building)
    result(
        {"out": str(out), "images": count},
        lambda: print(f"{count:,} images in {out}. Next: dalle data check {out}"),
    )

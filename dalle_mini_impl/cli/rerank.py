"""`dalle rerank`: images ordered by how well they fit a caption."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dalle_mini_impl.cli.image_files import open_images
from dalle_mini_impl.cli.output import OutputOptions, Result, output, show_table
from dalle_mini_impl.cli.output_folder import check_folder
from dalle_mini_impl.cli.parsing import parse_arguments
from dalle_mini_impl.cli.run_options import (
    ClipRun,
    Device,
    OtherClip,
    check_device,
    optional,
    required,
)


@dataclass(frozen=True)
class RerankArguments(OutputOptions):
    """Order images by how well they fit a caption."""

    caption: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CAPTION")]
    """What the images should show."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, required("IMAGE")]
    """Images, or folders of them."""
    run: ClipRun = None
    clip: OtherClip = None
    sheet: Annotated[Path | None, optional(metavar="FILE")] = None
    """Also write the images, best first, on one sheet (PNG)."""
    device: Device = None


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the options and rank the images."""
    arguments = parse_arguments(RerankArguments, argv, "dalle rerank")
    if arguments.sheet is not None:
        check_folder("--sheet", arguments.sheet.parent)
    check_device(arguments.device)
    with output(arguments) as result:
        order(arguments, result)


def order(arguments: RerankArguments, result: Result) -> None:
    """The images, best first."""
    opened = open_images(arguments.images)

    from dalle_mini_impl.images import contact_sheet, fit, save_png
    from dalle_mini_impl.retrieval.encoder import rerank
    from dalle_mini_impl.retrieval.loading import load_encoder

    clip = load_encoder(arguments.run, arguments.clip, arguments.device)
    names = list(opened)
    ranked = rerank(clip, arguments.caption, list(opened.values()))
    rows = [{"image": names[r.index], "score": r.score} for r in ranked]
    if arguments.sheet is not None:
        tiles = [fit(opened[names[r.index]], 128) for r in ranked]
        captions = [Path(names[r.index]).name for r in ranked]
        save_png(contact_sheet(tiles, captions, [r.score for r in ranked]), arguments.sheet)
    values = {"caption": arguments.caption, "images": rows}
    result(values, lambda: show_table(rows, arguments.caption))

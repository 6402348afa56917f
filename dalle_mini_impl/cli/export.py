"""`dalle export`: the part of a run that sampling needs, as a folder or one zip."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dalle_mini_impl.cli.output import OutputOptions, Result, output
from dalle_mini_impl.cli.output_folder import check_folder
from dalle_mini_impl.cli.parsing import parse_arguments


@dataclass(frozen=True)
class ExportArguments(OutputOptions):
    """Copy what sampling needs of a run: configuration, vocabulary, weights, and a card.

    Every --run takes the result. The configuration names the data's path on this machine.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """A new folder, or a new file that ends in .zip."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the stored weights: bfloat16 halves the size and changes images slightly."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the options and write the export."""
    arguments = parse_arguments(ExportArguments, argv, "dalle export")

    check_folder("OUT", arguments.out.parent)
    with output(arguments) as result:
        write(arguments, result)


def write(arguments: ExportArguments, result: Result) -> None:
    """Write the export with its card."""
    import torch

    from dalle_mini_impl.evaluation.report.card import card, samples_sheet
    from dalle_mini_impl.runs.archive import CARD, SAMPLES
    from dalle_mini_impl.runs.export import export
    from dalle_mini_impl.runs.named import find_run

    run, out = find_run(arguments.run), arguments.out
    # An exported run that is exported again keeps its card.
    files = [run.path / name for name in (CARD, SAMPLES)]
    extra = {file.name: file.read_bytes() for file in files if file.is_file()}
    extra.setdefault(CARD, card(run, out.stem, arguments.dtype).encode())
    sheet = samples_sheet(run)
    if sheet is not None:
        extra.setdefault(SAMPLES, sheet)
    export(run, out, getattr(torch, arguments.dtype), extra)
    size = sum(file.stat().st_size for file in (out.iterdir() if out.is_dir() else [out]))
    result(
        {"run": run.name, "out": str(out), "bytes": size},
        lambda: print(f'{out}: {size / 1e6:.1f} MB. Next: dalle sample "CAPTION" --run {out}'),
    )

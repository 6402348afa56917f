"""`dalle index`: embed the images of a folder or collection, so that they can be searched."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated

import tyro

from dalle_mini_impl.cli.output import OutputOptions, Result, output
from dalle_mini_impl.cli.parsing import parse_arguments
from dalle_mini_impl.cli.run_options import (
    ClipRun,
    Device,
    OtherClip,
    check_device,
    open_run,
    optional,
    refuse_read_only,
)
from dalle_mini_impl.data.messages import counted, first_names


@dataclass(frozen=True)
class IndexArguments(OutputOptions):
    """Make a collection searchable, or update its index after changes.

    The index is stored in the run's folder index/. Only new and changed images are embedded, and
    deleted ones are removed; after further training of the CLIP, all are embedded again.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A folder of images, or any collection: CSV, JSON, Parquet, tar, Hub name, shapes."""
    image_column: Annotated[str | None, optional("found by its name and contents", "NAME")] = None
    """Column of the images or their paths."""
    run: ClipRun = None
    clip: OtherClip = None
    device: Device = None


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the options and index."""
    arguments = parse_arguments(IndexArguments, argv, "dalle index")
    check_device(arguments.device)
    with output(arguments) as result:
        embed(arguments, result)


def embed(arguments: IndexArguments, result: Result) -> None:
    """Embed the images and save the index."""
    from dalle_mini_impl.retrieval.collection import collection
    from dalle_mini_impl.retrieval.image_index import ImageIndex, index_path
    from dalle_mini_impl.retrieval.loading import load_encoder
    from dalle_mini_impl.retrieval.refresh import refresh

    weights = "clip" if arguments.clip is None else None
    run = open_run(arguments.run, weights=weights)
    refuse_read_only(run, "an index")
    source = collection(arguments.data, run.experiment.data, arguments.image_column)
    name = arguments.clip or "run"
    path = index_path(run.path / "index", source, name)
    clip = load_encoder(run.path, arguments.clip, arguments.device)
    empty = ImageIndex(source, name, clip.key)
    index = ImageIndex.load(path) if path.is_file() else empty
    if index.key != clip.key:
        print("the index was made with other CLIP weights: all images are embedded again")
    index = replace(index, source=source)
    index, changes = refresh(index, clip, save=lambda unfinished: unfinished.save(path))
    index.save(path)
    if changes.unreadable:
        left_out = f"{counted(len(changes.unreadable), 'unreadable image')} left out"
        print(f"{left_out}: {first_names(changes.unreadable)}")
    summary = (
        f"{counted(len(index), 'image')} in {path}: {changes.added:,} added, "
        f"{changes.refreshed:,} refreshed, {changes.removed:,} removed, {changes.kept:,} unchanged"
    )
    values = {"run": str(run.path), "index": str(path), "images": len(index), **asdict(changes)}
    result(values, lambda: print(summary))
    print(f'next: dalle search "TEXT" --run {run.path}')

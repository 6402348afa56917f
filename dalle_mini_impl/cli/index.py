"""`dalle index`: embed the images of a folder or collection, so that they can be searched."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import tyro

from dalle_mini_impl.cli.run_options import ClipRun, Device, OtherClip, check_device, open_run


@dataclass(frozen=True)
class IndexArguments:
    """Make a collection searchable, or bring its index up to date after changes.

    The index lies in the run's folder index/. Only images that are new or changed are embedded;
    those that are gone are dropped; all are embedded anew when the CLIP was trained further.
    """

    data: Annotated[str, tyro.conf.Positional]
    """A folder of images, or any collection: CSV, JSON, Parquet, tar, Hub name, shapes."""
    image_column: str | None = None
    """Column of the images or their paths, where no known name tells."""
    run: ClipRun = None
    clip: OtherClip = None
    device: Device = None


def main(argv: Sequence[str] | None = None) -> None:
    """Index as the arguments say."""
    arguments = tyro.cli(IndexArguments, args=argv, prog="dalle index")
    check_device(arguments.device)

    from dalle_mini_impl.retrieval.collection import collection
    from dalle_mini_impl.retrieval.image_index import ImageIndex, index_path
    from dalle_mini_impl.retrieval.loading import load_encoder
    from dalle_mini_impl.retrieval.refresh import refresh

    weights = "clip" if arguments.clip is None else None
    run = open_run(arguments.run, weights=weights)
    source = collection(arguments.data, run.experiment.data, arguments.image_column)
    name = arguments.clip or "run"
    path = index_path(run.path / "index", source, name)
    clip = load_encoder(run.path, arguments.clip, arguments.device)
    empty = ImageIndex(source, name, clip.key)
    index = ImageIndex.load(path) if path.is_file() else empty
    if index.key != clip.key:
        print("the index is of other CLIP weights: every image is embedded anew")
    index = replace(index, source=source)
    index, changes = refresh(index, clip, save=lambda unfinished: unfinished.save(path))
    index.save(path)
    if changes.unreadable:
        shown = ", ".join(changes.unreadable[:5]) + (", …" if len(changes.unreadable) > 5 else "")
        print(f"{len(changes.unreadable):,} unreadable images left out: {shown}")
    print(
        f"{len(index):,} images in {path}: {changes.added:,} added, {changes.refreshed:,} "
        f"refreshed, {changes.removed:,} removed, {changes.kept:,} as they were"
    )
    print(f'next: dalle search "TEXT" --run {run.path}')

"""`dalle index`: embed the images of a folder or collection, so that they can be searched."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from dalle_mini_impl.cli.sample import check_device


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
    run: Path | None = None
    """Run folder; the newest run with a CLIP under runs/ if not given."""
    clip: str | None = None
    """Another CLIP: transformers:NAME or open_clip:ARCHITECTURE:WEIGHTS (names or local paths)."""
    device: str | None = None
    """cpu or cuda; the GPU if there is one."""


def main(argv: Sequence[str] | None = None) -> None:
    """Index as the arguments say."""
    arguments = tyro.cli(IndexArguments, args=argv, prog="dalle index")
    check_device(arguments.device)

    from dalle_mini_impl.retrieval.collection import collection
    from dalle_mini_impl.retrieval.image_index import ImageIndex, index_path
    from dalle_mini_impl.retrieval.loading import load_encoder
    from dalle_mini_impl.retrieval.refresh import refresh
    from dalle_mini_impl.runs.folder import RunFolder
    from dalle_mini_impl.runs.newest import newest

    weights = "clip" if arguments.clip is None else None
    run = RunFolder.open(arguments.run) if arguments.run else newest(weights=weights)
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

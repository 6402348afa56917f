"""Opens the files of a collection with Hugging Face `datasets`, images undecoded."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dalle_mini_impl.data.collections.columns import Columns, choose_columns
from dalle_mini_impl.data.collections.detect import HUB, Collection, DataError, suffix
from dalle_mini_impl.data.collections.hub import missing_on_hub, only_cached
from dalle_mini_impl.data.collections.sample_lists import listed_images
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.messages import readable, root_cause

ADDED_COLUMNS = ("__key__", "__url__", "__index_level_0__")
"""Columns that file formats add by themselves."""


@dataclass(frozen=True)
class CollectionTable:
    """One table of a collection."""

    rows: Any  # FileRows, datasets.Dataset or IterableDataset
    columns: Columns
    base: Path | None
    """The folder that relative image paths start from."""
    length: int | None
    """Number of rows; None where it is streamed."""
    embedded: bool = False
    """Whether rows hold images rather than their paths."""

    def image_file(self, path: str) -> str:
        """The file behind a path in the image column; absolute paths stay as they are."""
        return str((self.base or Path()) / path)


@dataclass(frozen=True)
class FileRows(Sequence[dict[str, Any]]):
    """The rows of a folder of images. Unlike a table of `datasets`, they may hold any file name,
    which need not be Unicode."""

    files: tuple[str, ...]
    captions: tuple[str, ...] | None
    """The text file of each image."""
    labels: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Any:
        row: dict[str, Any] = {"image": {"path": self.files[index]}}
        if self.captions is not None:
            row["captions"] = self.captions[index]
        if self.labels is not None:
            row["label"] = self.labels[index]
        return row


def open_files(config: DataConfig, found: Collection, path: str) -> list[CollectionTable]:
    """The files as tables, one per folder and file type. Raises DataError naming the file."""
    with quiet_datasets():
        if found.kind == "images":
            return [_image_folder(config, found)]
        if found.kind == "samples":
            return [_samples(config, found)]
        groups: dict[tuple[Path | None, str], list[str]] = {}
        for file in found.files:
            local = found.root is not None and found.kind != "webdataset"
            base = Path(file).parent if local else None
            groups.setdefault((base, suffix(file)), []).append(file)
        lines = found.kind == "webdataset"
        return [
            _table(config, _load_files(config, found, files), path, base, lines)
            for (base, _), files in groups.items()
        ]


def open_hub(config: DataConfig, path: str, validation: bool) -> tuple[list[CollectionTable], bool]:
    """A data set of the Hub (`owner/name:subset` picks a subset): its training or its validation
    split, and whether it has a validation split (else the training split is returned)."""
    import datasets

    name, _, subset = path.removeprefix(HUB).partition(":")
    here = f"data.path {path!r} is no file or folder here (from {Path.cwd()})"
    offline = ""
    try:
        if why := missing_on_hub(name):
            raise DataError(f"{here}, and as a Hub name: {why}")
    except ConnectionError as error:
        offline = str(error)
    with quiet_datasets():
        try:
            with only_cached() if offline else contextlib.nullcontext():
                loaded = datasets.load_dataset(name, subset or None, streaming=config.stream)
        except Exception as error:
            why = f"{offline}, and it was not downloaded before" if offline else root_cause(error)
            raise DataError(
                f"{here}, and could not be loaded as a Hub name either: {why}"
            ) from error
        train = "train" if "train" in loaded else next(iter(loaded))
        names = [name for name in ("validation", "valid", "dev", "test") if name in loaded]
        others = [name for name in names if name != train]
        chosen = loaded[others[0] if others and validation else train]
        return [_table(config, chosen, path, None, lines=False)], bool(others)


def _image_folder(config: DataConfig, found: Collection) -> CollectionTable:
    """A folder: captions from same-named .txt files, else labels from the folders' names."""
    texts = tuple(str(Path(file).with_suffix(".txt")) for file in found.files)
    folders = [found.relative(file).split("/")[:-1] for file in found.files]
    levels = {len(folder) for folder in folders}
    names = {folder[-1] for folder in folders if folder}
    captions = labels = None
    if any(os.path.isfile(text) for text in texts):
        captions = None if config.caption_column == "" else texts
    elif len(levels) == 1 and len(names) > 1 and config.label_column != "":
        labels = tuple(folder[-1] for folder in folders)
    rows = FileRows(found.files, captions, labels)
    columns = Columns(
        "image", "captions" if captions else None, "label" if labels else None, lines=True
    )
    return CollectionTable(rows, columns, None, len(rows))


def _samples(config: DataConfig, found: Collection) -> CollectionTable:
    """The images that lists of samples name, with the captions they were sampled from."""
    import datasets

    images: dict[Path, str] = {}
    for file in found.files:
        images |= listed_images(Path(file)) or {}
    table = {"image": [str(file) for file in images], "caption": list(images.values())}
    try:
        data = datasets.Dataset.from_dict(table).cast_column("image", datasets.Image(decode=False))
    except UnicodeEncodeError as error:
        raise DataError(f"{readable(found.files[0])}: a folder's name is not UTF-8") from error
    caption = None if config.caption_column == "" else "caption"
    return CollectionTable(data, Columns("image", caption, None), None, len(data))


def _load_files(config: DataConfig, found: Collection, files: list[str]) -> Any:
    import datasets

    options: dict[str, Any] = {}
    if found.kind == "csv":
        # Otherwise captions such as "none" or "NA" would be read as missing.
        options["keep_default_na"] = False
        if suffix(files[0]) == ".tsv":
            options["sep"] = "\t"
    try:
        return datasets.load_dataset(
            found.kind,
            data_files={"train": files},
            split="train",
            streaming=config.stream,
            **options,
        )
    except Exception as error:
        shown = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
        why = root_cause(error)
        if isinstance(error, ImportError) and "://" in files[0]:
            why += '; reading from a URL needs pip install "fsspec[http]"'
        raise DataError(f"{shown} could not be read as {found.kind}: {why}") from error


def _table(
    config: DataConfig, data: Any, path: str, base: Path | None, lines: bool
) -> CollectionTable:
    """The table with only the columns that are needed, so that no others are ever read."""
    import datasets

    where = f"data.path {path!r}"
    if data.features is None:  # a streamed table has no features before its first row
        try:
            data = data._resolve_features()
        except Exception as error:
            raise DataError(f"{where} could not be read: {root_cause(error)}") from error
    features = {name: kind for name, kind in data.features.items() if name not in ADDED_COLUMNS}
    columns = choose_columns(
        features, where, config.image_column, config.caption_column, config.label_column, lines
    )
    keep = [*columns.names_to_read(), *(["__key__"] if "__key__" in data.features else [])]
    try:
        data = data.select_columns(keep).cast_column(columns.image, datasets.Image(decode=False))
    except Exception as error:
        raise DataError(
            f"{where}: column {columns.image} holds no images or paths: {root_cause(error)}"
        ) from error
    paths = getattr(features.get(columns.image), "dtype", "") in ("string", "large_string")
    return CollectionTable(
        data, columns, base, None if config.stream else len(data), embedded=not paths
    )


def iterate_rows(table: CollectionTable, path: str) -> Iterator[dict[str, Any]]:
    """The rows of a table; a damaged file raises a DataError that names the path."""
    rows = iter(table.rows)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:
            raise DataError(f"data.path {path!r} is damaged: {root_cause(error)}") from error
        yield row


@contextlib.contextmanager
def quiet_datasets() -> Iterator[None]:
    """Silences the progress bars and log lines of `datasets`, and its report to the network of
    what is loaded, for which a machine without a network waits seconds at each file."""
    import datasets

    shown, level = not datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    reporting = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    try:
        yield
    finally:
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = reporting
        datasets.logging.set_verbosity(level)
        if shown:
            datasets.enable_progress_bars()

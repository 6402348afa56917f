"""Opens the files of a collection with Hugging Face `datasets`, images undecoded."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dalle_mini_impl.data.collections.columns import Columns, choose_columns
from dalle_mini_impl.data.collections.detect import HUB, Collection, DataError, suffix
from dalle_mini_impl.data.config import DataConfig

UNSEEN = ("__key__", "__url__", "__index_level_0__")
"""Columns that formats add and no person wrote."""


@dataclass(frozen=True)
class Table:
    """A table, and the folder that its relative image paths start from."""

    data: Any  # datasets.Dataset or IterableDataset
    columns: Columns
    base: Path | None
    length: int | None
    """Number of rows; none where it is streamed."""
    inside: bool = False
    """Whether rows hold images rather than their paths."""


def open_files(config: DataConfig, found: Collection, path: str) -> list[Table]:
    """The files as tables, one for each folder of tables. Raises DataError naming the file."""
    with quiet():
        if found.kind == "images":
            return [_images(config, found)]
        groups: dict[tuple[Path | None, str], list[str]] = {}
        for file in found.files:
            local = found.root is not None and found.kind != "webdataset"
            base = Path(file).parent if local else None
            groups.setdefault((base, suffix(file)), []).append(file)
        lines = found.kind == "webdataset"
        return [
            _part(config, _load(config, found, files), path, base, lines)
            for (base, _), files in groups.items()
        ]


def open_hub(config: DataConfig, path: str, validation: bool) -> tuple[list[Table], bool]:
    """A data set of the Hub (`owner/name:subset` picks a subset): its training or its validation
    split, and whether it has one for validation (the training split stands in where not)."""
    import datasets

    name, _, subset = path.removeprefix(HUB).partition(":")
    with quiet():
        try:
            loaded = datasets.load_dataset(name, subset or None, streaming=config.stream)
        except Exception as error:
            raise DataError(
                f"data.path {path!r} is no file or folder here (from {Path.cwd()}), and as a "
                f"Hub name it could not be loaded: {cause(error)}"
            ) from error
        train = "train" if "train" in loaded else next(iter(loaded))
        names = [name for name in ("validation", "valid", "dev", "test") if name in loaded]
        others = [name for name in names if name != train]
        chosen = loaded[others[0] if others and validation else train]
        return [_part(config, chosen, path, None, lines=False)], bool(others)


def _images(config: DataConfig, found: Collection) -> Table:
    """A folder: captions from same-named .txt files, else labels from the folders' names."""
    import datasets

    table: dict[str, list[str]] = {"image": list(found.files)}
    texts = [str(Path(file).with_suffix(".txt")) for file in found.files]
    folders = [found.relative(file).split("/")[:-1] for file in found.files]
    levels = {len(folder) for folder in folders}
    names = {folder[-1] for folder in folders if folder}
    if any(os.path.isfile(text) for text in texts):
        if config.caption_column != "":
            table["captions"] = texts
    elif len(levels) == 1 and len(names) > 1 and config.label_column != "":
        table["label"] = [folder[-1] for folder in folders]
    data = datasets.Dataset.from_dict(table)
    data = data.cast_column("image", datasets.Image(decode=False))
    caption = "captions" if "captions" in table else None
    label = "label" if "label" in table else None
    return Table(data, Columns("image", caption, label, lines=True), None, len(data))


def _load(config: DataConfig, found: Collection, files: list[str]) -> Any:
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
        why = cause(error)
        if isinstance(error, ImportError) and "://" in files[0]:
            why += '; reading from a URL needs pip install "fsspec[http]"'
        raise DataError(f"{shown} could not be read as {found.kind}: {why}") from error


def _part(config: DataConfig, data: Any, path: str, base: Path | None, lines: bool) -> Table:
    """Chooses the columns of a table and keeps only these, so that no other is ever read."""
    import datasets

    where = f"data.path {path!r}"
    if data.features is None:  # a streamed table tells its columns with its first row
        try:
            data = data._resolve_features()
        except Exception as error:
            raise DataError(f"{where} could not be read: {cause(error)}") from error
    features = {name: kind for name, kind in data.features.items() if name not in UNSEEN}
    columns = choose_columns(
        features, where, config.image_column, config.caption_column, config.label_column, lines
    )
    keep = [*columns.top(), *(["__key__"] if "__key__" in data.features else [])]
    try:
        data = data.select_columns(keep).cast_column(columns.image, datasets.Image(decode=False))
    except Exception as error:
        raise DataError(
            f"{where}: column {columns.image} holds no images or paths: {cause(error)}"
        ) from error
    paths = getattr(features.get(columns.image), "dtype", "") in ("string", "large_string")
    return Table(data, columns, base, None if config.stream else len(data), inside=not paths)


def iterate_rows(data: Any, path: str) -> Iterator[dict[str, Any]]:
    """The rows of a table; a damaged shard becomes a DataError that names the path."""
    rows = iter(data)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:
            raise DataError(f"data.path {path!r} broke off while read: {cause(error)}") from error
        yield row


def cause(error: BaseException) -> str:
    """The first line of the innermost message: `datasets` wraps the telling one."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars or log lines of `datasets` in between."""
    import datasets

    shown, level = not datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if shown:
            datasets.enable_progress_bars()

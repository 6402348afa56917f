"""Collections of files as examples: opening them with `datasets`, keys, captions and splits."""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from dalle_mini_impl.data.columns import Columns, choose
from dalle_mini_impl.data.detect import Collection, DataError, detect, suffix
from dalle_mini_impl.data.shapes import Split
from dalle_mini_impl.data.sources import DataConfig, Example, Source


@dataclass(frozen=True)
class Part:
    """A table whose relative picture paths start at `base`."""

    data: Any  # datasets.Dataset or IterableDataset, undecoded
    columns: Columns
    base: Path | None
    length: int | None


class TableSource(Source):
    """One split of a collection of files."""

    def __init__(self, config: DataConfig, split: Split) -> None:
        self.config, self.split = config, split
        self.by_hash = False
        path = config.path
        found = detect(path)
        if config.held_out_path is not None:
            if split == "validation":
                path = config.held_out_path
                found = detect(path)
        elif split != "held_out":
            named = found.named(split) if found.kind != "hub" else None
            validation = found.named("validation") if found.kind != "hub" else None
            self.by_hash = validation is None
            found = named if named is not None and validation is not None else found
        self.path, self.collection = path, found
        with _quiet():
            self.parts = self._open()
        self.captioned = any(p.columns.caption or p.columns.label for p in self.parts)
        self.matchers = [re.compile(e, re.I) for e in config.held_out_captions]
        self.description = self._describe()

    @property
    def reader(self) -> Callable[[Example], Example]:
        return _same

    def size(self) -> int | None:
        lengths = [part.length for part in self.parts]
        if None in lengths:
            return self.config.limit
        total = sum(length for length in lengths if length is not None)
        return min(total, self.config.limit or total)

    def rows(self) -> Iterator[Example]:
        if self.split == "held_out" and not self.matchers:
            return iter(())
        return islice(filter(self._belongs, self._examples()), self.config.limit)

    def _belongs(self, example: Example) -> bool:
        matched = any(m.search(text) for m in self.matchers for text in example.captions)
        if self.split == "held_out" or matched:
            return self.split == "held_out" and matched
        if not self.by_hash:
            return True
        return (_share(example.key) < self.config.held_out) == (self.split == "validation")

    def _examples(self) -> Iterator[Example]:
        lengths = [part.length for part in self.parts]
        if self.config.limit is None or None in lengths:
            index = 0
            for part in self.parts:
                for row in _readable(part.data, self.path):
                    yield self._example(part, row, index)
                    index += 1
            return
        # The first rows may all be of one class, so a limit takes a fixed sample instead.
        starts = np.cumsum([0, *[length or 0 for length in lengths]])
        for index in np.random.default_rng(0).permutation(int(starts[-1])):
            number = int(np.searchsorted(starts, index, side="right")) - 1
            part = self.parts[number]
            yield self._example(part, part.data[int(index - starts[number])], int(index))

    def _example(self, part: Part, row: dict[str, Any], index: int) -> Example:
        image = row[part.columns.image] or {}
        data, path = image.get("bytes"), image.get("path")
        if data is not None:
            key = str(row.get("__key__") or f"{index:08d}")
            return Example(key, data, self._captions(part, row))
        if not path:
            return Example(f"{index:08d}", None, self._captions(part, row))
        if "://" in path:
            return Example(path, path, self._captions(part, row))
        file = str((part.base or Path()) / path)  # an absolute path stays what it is
        root = self.collection.root
        key = os.path.relpath(file, root).replace(os.sep, "/") if root else path
        return Example(key, file, self._captions(part, row))

    def _captions(self, part: Part, row: dict[str, Any]) -> tuple[str, ...]:
        if self.collection.kind == "pictures" and part.columns.caption:
            text = Path(row["captions"])
            row = {**row, "captions": _read_text(text) if text.is_file() else ""}
        return part.columns.captions(row, self.config.templates)

    def fingerprint(self) -> str:
        """Hash of names, sizes and times of all files; of `datasets`' own where there are none."""
        digest = hashlib.sha256()
        files = list(self.collection.files)
        for part in self.parts:
            own = getattr(part.data, "_fingerprint", "") if self.collection.root is None else ""
            digest.update(f"{part.columns}{own}".encode())
            if self.collection.kind in ("csv", "json") and part.length is not None:
                images = part.data[:][part.columns.image]
                named = [Path(image["path"]) for image in images if image and image["path"]]
                files += [str((part.base or Path()) / file) for file in named]
        if self.collection.kind == "pictures":
            files += [str(Path(file).with_suffix(".txt")) for file in self.collection.files]
        for file in files:
            digest.update(self.collection.relative(file).encode("utf-8", "surrogatepass"))
            with contextlib.suppress(OSError):
                status = os.stat(file)
                digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
        return digest.hexdigest()

    def _open(self) -> list[Part]:
        found = self.collection
        if found.kind == "pictures":
            return [self._pictures(found)]
        if found.kind == "hub":
            return [self._part(self._hub(), None)]
        groups: dict[tuple[Path | None, str], list[str]] = {}
        for file in found.files:
            local = found.root is not None and found.kind != "webdataset"
            base = Path(file).parent if local else None
            groups.setdefault((base, suffix(file)), []).append(file)
        return [self._part(self._load(files), base) for (base, _), files in groups.items()]

    def _pictures(self, found: Collection) -> Part:
        """A folder: captions from same-named .txt files, else labels from folders' names."""
        import datasets

        table: dict[str, list[str]] = {"image": list(found.files)}
        texts = [str(Path(file).with_suffix(".txt")) for file in found.files]
        folders = [found.relative(file).split("/")[:-1] for file in found.files]
        captioned = any(os.path.isfile(text) for text in texts)
        levels = {len(folder) for folder in folders}
        names = {folder[-1] for folder in folders if folder}
        if captioned and self.config.caption_column != "":
            table["captions"] = texts
        elif len(levels) == 1 and len(names) > 1 and self.config.label_column != "":
            table["label"] = [folder[-1] for folder in folders]
        data = datasets.Dataset.from_dict(table)
        data = data.cast_column("image", datasets.Image(decode=False))
        columns = Columns(
            "image",
            "captions" if "captions" in table else None,
            "label" if "label" in table else None,
            lines=True,
        )
        return Part(data, columns, None, len(data))

    def _hub(self) -> Any:
        """A data set of the Hub; `owner/name:subset` picks a subset."""
        import datasets

        name, _, subset = self.path.partition(":")
        try:
            loaded = datasets.load_dataset(name, subset or None, streaming=self.config.stream)
        except Exception as error:
            raise DataError(
                f"data.path {self.path!r} is no file or folder here (from {Path.cwd()}), and as a "
                f"Hub name it could not be loaded: {_cause(error)}"
            ) from error
        train = "train" if "train" in loaded else next(iter(loaded))
        if self.config.held_out_path is not None:
            return loaded[train]
        others = [name for name in ("validation", "valid", "dev", "test") if name in loaded]
        others = [name for name in others if name != train]
        if self.split != "held_out":
            self.by_hash = not others
        return loaded[others[0] if others and self.split == "validation" else train]

    def _load(self, files: list[str]) -> Any:
        import datasets

        options: dict[str, Any] = {}
        if self.collection.kind == "csv":
            # Otherwise captions such as "none" or "NA" would be read as missing.
            options["keep_default_na"] = False
            if suffix(files[0]) == ".tsv":
                options["sep"] = "\t"
        try:
            return datasets.load_dataset(
                self.collection.kind,
                data_files={"train": files},
                split="train",
                streaming=self.config.stream,
                **options,
            )
        except Exception as error:
            shown = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
            raise DataError(
                f"{shown} could not be read as {self.collection.kind}: {_cause(error)}"
            ) from error

    def _part(self, data: Any, base: Path | None) -> Part:
        import datasets

        features = data.features
        if features is None:  # a streamed table tells its columns with its first row
            data = data._resolve_features()
            features = data.features
        hidden = {"__key__", "__url__", "__index_level_0__"}
        shown = {name: kind for name, kind in features.items() if name not in hidden}
        config = self.config
        columns = choose(
            shown,
            f"data.path {self.path!r}",
            config.image_column,
            config.caption_column,
            config.label_column,
            lines=self.collection.kind == "webdataset",
        )
        keep = [*columns.top(), *(["__key__"] if "__key__" in features else [])]
        data = data.select_columns(keep)
        try:
            data = data.cast_column(columns.image, datasets.Image(decode=False))
        except Exception as error:
            raise DataError(
                f"data.path {self.path!r}: column {columns.image} holds no pictures or paths: "
                f"{_cause(error)}"
            ) from error
        return Part(data, columns, base, None if config.stream else len(data))

    def _describe(self) -> str:
        found, columns = self.collection, self.parts[0].columns
        names = {
            "pictures": "picture files",
            "csv": "CSV tables",
            "json": "JSON tables",
            "parquet": "Parquet files",
            "webdataset": "WebDataset shards",
            "hub": "Hub data",
        }
        what = names[found.kind]
        if len(found.files) == 1:
            what = what.removesuffix("s")
        count = f"{len(found.files):,} {what}" if found.kind != "hub" else what
        if found.kind == "pictures":
            where = {True: "same-named .txt files", False: ""}[columns.caption is not None]
            where = where or ("their folders' names" if columns.label else "")
            return f"{count}, captions from {where}" if where else f"{count} without captions"
        text = f"{count}: pictures from `{columns.image}`"
        text += f", captions from `{columns.caption}`" if columns.caption else ""
        text += f", labels from `{columns.label}`" if columns.label else ""
        return text if columns.caption or columns.label else text + ", no captions"


def _same(example: Example) -> Example:
    return example


def _share(key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _read_text(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")  # what old Windows editors write


def _readable(data: Any, path: str) -> Iterator[dict[str, Any]]:
    """The rows; a damaged shard becomes a DataError that names the path."""
    rows = iter(data)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:
            raise DataError(f"data.path {path!r} broke off while read: {_cause(error)}") from error
        yield row


def _cause(error: BaseException) -> str:
    """The innermost message: `datasets` wraps the telling one."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
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

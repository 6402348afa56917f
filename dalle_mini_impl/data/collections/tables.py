"""Collections of files as examples: their keys, captions and splits."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dalle_mini_impl.data.collections.detect import HUB, detect, real_path
from dalle_mini_impl.data.collections.fingerprints import files_fingerprint
from dalle_mini_impl.data.collections.loading import Table, iterate_rows, open_files, open_hub
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.examples import Example, Source
from dalle_mini_impl.data.splits import Split

NAMES = {
    "images": "image files",
    "csv": "CSV tables",
    "json": "JSON tables",
    "parquet": "Parquet files",
    "webdataset": "WebDataset shards",
    "hub": "Hub data sets",
}


class TableSource(Source):
    """One split of a collection of files or of the Hub."""

    def __init__(self, config: DataConfig, split: Split) -> None:
        self.config, self.split = config, split
        elsewhere, self.excluded = _apart(config, split)
        self.path = (elsewhere if split == "validation" else None) or config.path
        found = detect(self.path)
        if found.kind == "hub":
            self.parts, has_validation = open_hub(config, self.path, split == "validation")
        else:
            has_validation = found.named("validation") is not None
            if split != "held_out":
                found = found.named(split) or found
            found = found.without(self.excluded)
            self.parts = open_files(config, found, self.path)
        self.collection = found
        # Without files for validation, a share of the images is kept for it.
        self.by_hash = not (has_validation or elsewhere or split == "held_out")
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
        file = example.image
        if self.excluded and isinstance(file, str) and real_path(file) in self.excluded:
            return False
        matched = self._matches(example) or bool(self.held and _content(example) in self.held)
        if self.split == "held_out" or matched:
            return self.split == "held_out" and matched
        if not self.by_hash:
            return True
        return (_share(self._identity(example)) < self.config.held_out) == (
            self.split == "validation"
        )

    def _identity(self, example: Example) -> str:
        """What names the image: a table with images inside may have a row for each caption."""
        if isinstance(example.image, bytes) and self._content_decides:
            return _digest(example.image).hex()
        return example.key

    @property
    def _content_decides(self) -> bool:
        """Whether the split goes by the images' bytes; WebDataset's keys name images."""
        return self.collection.kind != "webdataset" and any(part.inside for part in self.parts)

    def _matches(self, example: Example) -> bool:
        return any(m.search(text) for m in self.matchers for text in example.captions)

    @cached_property
    def held(self) -> frozenset[str | bytes]:
        """Images that a caption in some row holds out: tables may have a row for each caption,
        so this first pass finds the images whose other rows do not match."""
        if not self.matchers or self.collection.kind in ("images", "webdataset"):
            return frozenset()
        return frozenset(_content(e) for e in self._all() if self._matches(e)) - {b""}

    def _examples(self) -> Iterator[Example]:
        lengths = [part.length for part in self.parts]
        if self.config.limit is None or None in lengths:
            yield from self._all()
            return
        # The first rows may all be of one class, so a limit takes a fixed sample instead.
        starts = np.cumsum([0, *[length or 0 for length in lengths]])
        for index in np.random.default_rng(0).permutation(int(starts[-1])):
            number = int(np.searchsorted(starts, index, side="right")) - 1
            part = self.parts[number]
            yield self._example(part, part.data[int(index - starts[number])], int(index))

    def _all(self) -> Iterator[Example]:
        rows = ((part, row) for part in self.parts for row in iterate_rows(part.data, self.path))
        for index, (part, row) in enumerate(rows):
            yield self._example(part, row, index)

    def _example(self, part: Table, row: dict[str, Any], index: int) -> Example:
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

    def _captions(self, part: Table, row: dict[str, Any]) -> tuple[str, ...]:
        if self.collection.kind == "images" and part.columns.caption:
            text = Path(row["captions"])
            row = {**row, "captions": _read_text(text) if text.is_file() else ""}
        return part.columns.captions(row, self.config.templates)

    def fingerprint(self) -> str:
        """Hash of names and contents of all files; `datasets`' own where there are none."""
        root = real_path(str(self.collection.root)) if self.collection.root else None
        excluded = sorted(os.path.relpath(file, root) if root else file for file in self.excluded)
        digest = hashlib.sha256(repr((self.by_hash, excluded)).encode("utf-8", "surrogatepass"))
        if self.by_hash and self._content_decides:
            digest.update(b"split by content")  # stores of a split by row keys would overlap
        files = list(self.collection.files)
        for part in self.parts:
            own = getattr(part.data, "_fingerprint", "") if self.collection.root is None else ""
            digest.update(f"{part.columns}{own}".encode())
            if self.collection.kind in ("csv", "json") and part.length is not None:
                images = part.data[:][part.columns.image]
                named = [Path(image["path"]) for image in images if image and image["path"]]
                files += [str((part.base or Path()) / file) for file in named]
        if self.collection.kind == "images":
            files += [str(Path(file).with_suffix(".txt")) for file in self.collection.files]
        named_files = [(self.collection.relative(file), file) for file in files]
        digest.update(files_fingerprint(named_files).encode())
        return digest.hexdigest()

    def _describe(self) -> str:
        found, columns = self.collection, self.parts[0].columns
        count = f"{len(found.files):,} {NAMES[found.kind]}"
        if len(found.files) == 1:
            count = count.removesuffix("s")
        if found.kind == "images":
            if columns.caption:
                return f"{count}, captions from same-named .txt files"
            return f"{count}, {'labels from their folders' if columns.label else 'no captions'}"
        text = f"{count}: images from `{columns.image}`"
        text += f", captions from `{columns.caption}`" if columns.caption else ""
        text += f", labels from `{columns.label}`" if columns.label else ""
        return text if columns.caption or columns.label else text + ", no captions"


def _same(example: Example) -> Example:
    return example


def _content(example: Example) -> str | bytes:
    """What rows of one image share: its path, or a hash of its bytes where rows hold these."""
    if isinstance(example.image, str):
        return real_path(example.image)
    if isinstance(example.image, bytes):
        return _digest(example.image)
    return b""


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _apart(config: DataConfig, split: Split) -> tuple[str | None, frozenset[str]]:
    """The path of validation where it is another one, and what both paths hold and this split
    leaves to the other: training gives way, unless validation's path holds all of training."""
    elsewhere = config.held_out_path
    if elsewhere is None or split == "held_out":
        return elsewhere, frozenset()
    if elsewhere.removeprefix(HUB) == config.path.removeprefix(HUB):
        return None, frozenset()
    training = _held(config, config.path, "train")
    validation = _held(config, elsewhere, "validation")
    if training and training == validation:
        return None, frozenset()
    gives_way = "validation" if training <= validation else "train"
    return elsewhere, training & validation if split == gives_way else frozenset()


def _held(config: DataConfig, path: str, split: Literal["train", "validation"]) -> frozenset[str]:
    """Files or URLs of a split: the images that tables name, else the files themselves."""
    found = detect(path)
    if found.kind == "hub":
        return frozenset()
    found = found.named(split) or found
    if found.kind not in ("csv", "json"):
        return frozenset(map(real_path, found.files))
    return frozenset(
        real_path(str((part.base or Path()) / image["path"]))
        for part in open_files(config, found, path)
        for row in iterate_rows(part.data, path)
        if (image := row[part.columns.image]) and image.get("path")
    )


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

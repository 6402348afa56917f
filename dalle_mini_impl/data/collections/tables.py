"""A collection of files or of the Hub as a source: keys, captions and splits of its examples."""

import hashlib
import os
import re
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from dalle_mini_impl.data.collections.columns import Columns
from dalle_mini_impl.data.collections.detect import KIND_NAMES, detect, real_path
from dalle_mini_impl.data.collections.fingerprints import files_fingerprint
from dalle_mini_impl.data.collections.loading import (
    CollectionTable,
    iterate_rows,
    open_files,
    open_hub,
)
from dalle_mini_impl.data.collections.overlap import separate_validation
from dalle_mini_impl.data.collections.shards import find_damage
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.examples import Example, Source
from dalle_mini_impl.data.messages import counted, readable
from dalle_mini_impl.data.splits import Split


class TableSource(Source):
    """One split of a collection of files or of the Hub."""

    def __init__(self, config: DataConfig, split: Split) -> None:
        self.config, self.split = config, split
        elsewhere, self.excluded = separate_validation(config, split)
        self.path = (elsewhere if split == "validation" else None) or config.path
        found = detect(self.path)
        if found.kind == "hub":
            self.tables, has_validation = open_hub(config, self.path, split == "validation")
        else:
            has_validation = found.named("validation") is not None
            if split != "held_out":
                found = found.named(split) or found
            found = found.without(self.excluded)
            self.tables = open_files(config, found, self.path)
        self.collection = found
        # Without validation files, a share of the images is kept for validation.
        self.by_hash = not (has_validation or elsewhere or split == "held_out")
        self.captioned = any(t.columns.caption or t.columns.label for t in self.tables)
        self.matchers = [re.compile(e, re.I) for e in config.held_out_captions]
        empty = not self.matchers if split == "held_out" else self.by_hash and not config.held_out
        self.may_share_images = not empty
        self.description = self._describe()
        self.reader = _identity

    def size(self) -> int | None:
        lengths = [table.length for table in self.tables]
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
        held_out = self._held_out_images
        matched = self._matches(example) or bool(held_out and _content(example) in held_out)
        if self.split == "held_out" or matched:
            return self.split == "held_out" and matched
        if not self.by_hash:
            return True
        validates = _hash_fraction(self._split_key(example)) < self.config.held_out
        return validates == (self.split == "validation")

    def _split_key(self, example: Example) -> str:
        """What the image is split by: rows with embedded images may repeat it for each caption."""
        if isinstance(example.image, bytes) and self._split_by_content:
            return _digest(example.image).hex()
        return example.key

    @property
    def _split_by_content(self) -> bool:
        """Whether the split depends on the images' bytes; WebDataset keys identify images."""
        return self.collection.kind != "webdataset" and any(table.embedded for table in self.tables)

    def _matches(self, example: Example) -> bool:
        return any(m.search(text) for m in self.matchers for text in example.captions)

    @cached_property
    def _held_out_images(self) -> frozenset[str | bytes]:
        """Images with a matching caption in any row. Tables may have a row for each caption, so
        this first pass is needed to hold out the image's other rows too."""
        if not self.matchers or self.collection.kind in ("images", "webdataset"):
            return frozenset()
        return frozenset(_content(e) for e in self._all() if self._matches(e)) - {b""}

    def _examples(self) -> Iterator[Example]:
        lengths = [table.length for table in self.tables]
        if self.config.limit is None or None in lengths:
            yield from self._all()
            yield from self._hidden
            return
        # The first rows may all be of one class, so a limit takes a fixed sample instead.
        starts = np.cumsum([0, *[length or 0 for length in lengths]])
        count = int(starts[-1])
        for index in np.random.default_rng(0).permutation(count + len(self._hidden)):
            if index >= count:
                yield self._hidden[index - count]
                continue
            number = int(np.searchsorted(starts, index, side="right")) - 1
            table = self.tables[number]
            yield self._example(table, table.rows[int(index - starts[number])], int(index))

    def _all(self) -> Iterator[Example]:
        rows = ((table, row) for table in self.tables for row in iterate_rows(table, self.path))
        for index, (table, row) in enumerate(rows):
            yield self._example(table, row, index)

    @cached_property
    def _hidden(self) -> list[Example]:
        """The images that damaged shards hide; they count as unreadable."""
        if self.collection.kind != "webdataset" or self.collection.root is None:
            return []
        damaged = ((file, find_damage(file)) for file in self.collection.files)
        return [
            Example(readable(key), None, (), problem=found.reason)
            for file, found in damaged
            if found is not None
            for key in found.images or (self.collection.relative(file),)
        ]

    def _example(self, table: CollectionTable, row: dict[str, Any], index: int) -> Example:
        image = row[table.columns.image] or {}
        data, path = image.get("bytes"), image.get("path")
        if data is not None:
            key = str(row.get("__key__") or f"{index:08d}")
        elif not path:
            key = f"{index:08d}"
        elif "://" in path:
            key, data = path, path
        else:
            data, root = table.image_file(path), self.collection.root
            key = os.path.relpath(data, root).replace(os.sep, "/") if root else path
        captions, most = self._captions(table, row), self.config.max_megapixels
        return Example(readable(key), data, captions, max_megapixels=most)

    def _captions(self, table: CollectionTable, row: dict[str, Any]) -> tuple[str, ...]:
        if self.collection.kind == "images" and table.columns.caption:
            return captions_in(Path(row["captions"]))
        return table.columns.captions(row, self.config.templates)

    def fingerprint(self) -> str:
        """Hash of names and contents of all files, or the fingerprint of `datasets` for the Hub."""
        root = real_path(str(self.collection.root)) if self.collection.root else None
        excluded = sorted(os.path.relpath(file, root) if root else file for file in self.excluded)
        digest = hashlib.sha256(repr((self.by_hash, excluded)).encode("utf-8", "surrogatepass"))
        if self.by_hash and self._split_by_content:
            digest.update(b"split by content")  # a store split by row keys would overlap
        files = list(self.collection.files)
        for table in self.tables:
            own = getattr(table.rows, "_fingerprint", "") if self.collection.root is None else ""
            digest.update(f"{table.columns}{own}".encode())
            if self.collection.kind in ("csv", "json", "samples") and table.length is not None:
                images = table.rows[:][table.columns.image]
                files += [table.image_file(i["path"]) for i in images if i and i["path"]]
        if self.collection.kind == "images":
            files += [str(Path(file).with_suffix(".txt")) for file in self.collection.files]
        named_files = [(self.collection.relative(file), file) for file in files]
        digest.update(files_fingerprint(named_files).encode())
        return digest.hexdigest()

    def _describe(self) -> str:
        found, columns = self.collection, self.tables[0].columns
        count = counted(len(found.files), KIND_NAMES[found.kind].removesuffix("s"))
        if found.kind == "images":
            if columns.caption:
                return f"{count}, captions from same-named .txt files"
            return f"{count}, {'labels from their folders' if columns.label else 'no captions'}"
        text = f"{count}: images from `{columns.image}`"
        text += f", captions from `{columns.caption}`" if columns.caption else ""
        text += f", labels from `{columns.label}`" if columns.label else ""
        return text if columns.caption or columns.label else text + ", no captions"


def captions_in(file: Path) -> tuple[str, ...]:
    """The captions in an image's text file, one a line; none if there is no such file."""
    columns = Columns(image="", caption="text", label=None, lines=True)
    return columns.captions({"text": _read_text(file) if file.is_file() else ""}, ())


def _identity(example: Example) -> Example:
    return example


def _content(example: Example) -> str | bytes:
    """The same for all rows of one image: its path, or a hash of its bytes."""
    if isinstance(example.image, str):
        return real_path(example.image)
    if isinstance(example.image, bytes):
        return _digest(example.image)
    return b""


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _hash_fraction(key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _read_text(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")  # what old Windows editors write

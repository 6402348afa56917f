"""The prepared images of a split: decoded once, at one size, memory-mapped beside their captions.

FOLDER/SPLIT/images.u8      uint8 [n, side, side, 3]
FOLDER/SPLIT/examples.jsonl   key, captions and attributes of each image
FOLDER/SPLIT/store.json       fingerprint, counts, side, and a digest of all of it
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dalle_mini_impl.data.collections.detect import DataError
from dalle_mini_impl.files import file_digest


@dataclass(frozen=True)
class Store:
    """The prepared images of one split, in the order of their source."""

    folder: Path
    side: int
    images: np.ndarray
    """uint8 [n, side, side, 3], memory-mapped and read-only."""
    keys: list[str]
    captions: list[tuple[str, ...]]
    """At least one caption for each image; ("",) where the collection has none."""
    attributes: list[dict[str, Any] | None]
    fingerprint: str
    captioned: bool
    counts: dict[str, int] = field(default_factory=dict)
    """Images left out: unreadable, uncaptioned, copies of images of another split."""

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def open(cls, folder: Path) -> "Store":
        """Opens a prepared split. DataError if it is damaged, FileNotFoundError without one."""
        meta = _checked_meta(folder)
        with (folder / "examples.jsonl").open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        shape = (len(rows), meta["side"], meta["side"], 3)
        images = (
            np.memmap(folder / "images.u8", np.uint8, "r", shape=shape)
            if rows
            else np.zeros(shape, np.uint8)  # an empty file cannot be mapped
        )
        return cls(
            folder,
            meta["side"],
            images,
            [row["key"] for row in rows],
            [tuple(row["captions"]) for row in rows],
            [row["attributes"] for row in rows],
            meta["fingerprint"],
            meta["captioned"],
            meta["counts"],
        )


def _checked_meta(folder: Path) -> dict[str, Any]:
    """The contents of store.json; DataError unless its digest is that of the store."""
    try:
        meta = json.loads((folder / "store.json").read_text("utf-8"))
        noted = meta.pop("digest")
    except KeyError:
        raise DataError(f"{folder} has no digest, as stores of earlier versions") from None
    except (ValueError, AttributeError):
        raise DataError(f"{folder} is damaged: store.json cannot be read") from None
    if noted != store_digest(folder, meta):
        raise DataError(f"{folder} is damaged: its contents differ from their digest")
    return meta


def store_digest(folder: Path, meta: dict[str, Any]) -> str:
    """The digest of a store's files and of what its store.json says."""
    files = [folder / "examples.jsonl", folder / "images.u8"]
    return settings_hash([file_digest(*files), meta])


def settings_hash(parts: list[Any]) -> str:
    """A hash of what JSON can hold, in 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def stored_line(key: str, captions: Sequence[str], attributes: dict[str, Any] | None) -> str:
    """An image's line in examples.jsonl."""
    row = {"key": key, "captions": captions or ("",), "attributes": attributes}
    return json.dumps(row, ensure_ascii=False) + "\n"

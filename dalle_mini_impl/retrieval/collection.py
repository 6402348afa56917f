"""The images of a collection as an index sees them: all splits, each image once."""

import hashlib
import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dalle_mini_impl.data.collections.detect import DataError, detect
from dalle_mini_impl.data.collections.tables import captions_in
from dalle_mini_impl.data.config import SYNTHETIC, DataConfig
from dalle_mini_impl.data.examples import Example, SyntheticImage
from dalle_mini_impl.data.messages import readable
from dalle_mini_impl.data.sources import open_source
from dalle_mini_impl.data.splits import SPLITS


@dataclass(frozen=True)
class IndexEntry:
    """An image of a collection, not opened yet."""

    name: str
    stamp: str
    """Changes with its content; empty if there is no image."""
    example: Example


def collection(
    path: str, trained_on: DataConfig | None = None, image_column: str | None = None
) -> DataConfig:
    """The configuration of all images at a path, without splits.

    trained_on: a run's data section; if it has the same path, its columns and settings are used.
    image_column: only needed if neither the run nor the column's name or type tells which it is.
    Of tables without a caption column that can be recognized, only the images are used.
    """
    resolved = _resolved(path)
    whole = {
        "path": resolved,
        "held_out": 0.0,
        "held_out_captions": (),
        "held_out_path": None,
        "limit": None,
    } | ({} if image_column is None else {"image_column": image_column})
    if trained_on is not None and resolved == _resolved(trained_on.path):
        return trained_on.model_copy(update=whole)
    config = DataConfig(path=path).model_copy(update=whole)
    if resolved in SYNTHETIC or detect(resolved).kind == "images":
        return config
    try:
        open_source(config, "train")
    except DataError:
        # The captions may be missing; any other error is raised again when images are read.
        return config.model_copy(update={"caption_column": ""})
    return config


def _resolved(path: str) -> str:
    """The absolute path of anything local; other names stay as they are."""
    local = Path(os.path.expanduser(path))
    return str(local.resolve()) if path not in ("", *SYNTHETIC) and local.exists() else path


def entries_of(source: DataConfig) -> Iterator[IndexEntry]:
    """Every image of a collection once, in a fixed order. DataError if it cannot be read."""
    if source.path not in SYNTHETIC:
        found = detect(source.path)
        if found.kind == "images" and found.root is not None:
            # Every image under the folder, with or without a caption.
            for file in found.files:
                name = readable(found.relative(file))
                captions = captions_in(Path(file).with_suffix(".txt"))
                yield IndexEntry(name, _stamp(file), Example(name, file, captions))
            return
    seen: set[str] = set()
    for split in SPLITS:
        for example in open_source(source, split):
            filed = isinstance(example.image, str) or example.key.startswith(f"{split}/")
            name = example.key if filed else f"{split}/{example.key}"
            if name not in seen:  # a table may have a row for each caption of an image
                seen.add(name)
                yield IndexEntry(name, _stamp(example.image), example)


@dataclass(frozen=True)
class OpenedImage:
    """An image of an indexed collection with its captions."""

    image: Image.Image
    captions: tuple[str, ...]


def open_named(source: DataConfig, names: Collection[str]) -> dict[str, OpenedImage]:
    """Images of a collection by name; missing and damaged ones are left out."""
    left, found = set(names), {}
    for entry in entries_of(source):
        if entry.name in left:
            left.remove(entry.name)
            try:
                found[entry.name] = OpenedImage(entry.example.open(), entry.example.captions)
            except Exception:  # Pillow fails in many ways on damaged files
                continue
        if not left:
            break
    return found


def _stamp(content: bytes | str | SyntheticImage | None) -> str:
    if isinstance(content, str):
        try:
            status = os.stat(content)
        except (OSError, ValueError):  # ValueError: what no path can be
            return ""
        return f"{status.st_size} {status.st_mtime_ns}"
    if content is None:
        return ""
    if isinstance(content, SyntheticImage):
        content = json.dumps(content.to_dict()).encode()
    return hashlib.blake2b(content, digest_size=16).hexdigest()

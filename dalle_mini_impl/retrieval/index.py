"""Keeps image indexes current: embeds what is new or changed, drops what is gone."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from dalle_mini_impl.data.collections.detect import DataError, detect
from dalle_mini_impl.data.config import SYNTHETIC, DataConfig
from dalle_mini_impl.data.examples import Example, SyntheticImage
from dalle_mini_impl.data.sources import open_source
from dalle_mini_impl.data.splits import Split
from dalle_mini_impl.images import fit
from dalle_mini_impl.retrieval.encoder import BATCH, JointEncoder
from dalle_mini_impl.retrieval.search import ImageIndex

SPLITS: tuple[Split, ...] = ("train", "validation", "held_out")
SAVE_EVERY = 8192
"""New images after which an unfinished index is saved: an interruption loses no more."""


@dataclass(frozen=True)
class IndexEntry:
    """An image of a collection, not opened yet."""

    name: str
    stamp: str
    """Changes with its content; empty where the image cannot be had."""
    example: Example


@dataclass(frozen=True)
class Changes:
    """What a refresh did, in numbers of images."""

    added: int = 0
    refreshed: int = 0
    removed: int = 0
    kept: int = 0
    unreadable: tuple[str, ...] = ()
    """Names of images that could not be opened; they are tried again next time."""


def collection(
    path: str, trained_on: DataConfig | None = None, image_column: str | None = None
) -> DataConfig:
    """All images behind a path, without splits.

    trained_on: a run's data section, whose columns and settings hold where it is the same path.
    image_column: the column of the images, None where its name or kind or the run tells.
    Of other tables whose captions cannot be told, the images alone are taken.
    """
    where = _resolved(path)
    whole = {
        "path": where,
        "held_out": 0.0,
        "held_out_captions": (),
        "held_out_path": None,
        "limit": None,
    } | ({} if image_column is None else {"image_column": image_column})
    if trained_on is not None and where == _resolved(trained_on.path):
        return trained_on.model_copy(update=whole)
    config = DataConfig(path=path).model_copy(update=whole)
    if where in SYNTHETIC or detect(where).kind == "images":
        return config
    try:
        open_source(config, "train")
    except DataError:
        # What is wrong with anything but the captions is said when the images are read.
        return config.model_copy(update={"caption_column": ""})
    return config


def _resolved(path: str) -> str:
    """One spelling for each local path; other names stay as they are."""
    local = Path(path).expanduser()
    return str(local.resolve()) if path not in SYNTHETIC and local.exists() else path


def entries_of(source: DataConfig) -> Iterator[IndexEntry]:
    """Every image of a collection once, in a fixed order. DataError if it cannot be read."""
    if source.path not in SYNTHETIC:
        found = detect(source.path)
        if found.kind == "images" and found.root is not None:
            # Any image under the folder, whether or not a caption goes with it.
            for file in found.files:
                name = found.relative(file)
                yield IndexEntry(name, _stamp(file), Example(name, file, ()))
            return
    seen: set[str] = set()
    for split in SPLITS:
        for example in open_source(source, split):
            filed = isinstance(example.image, str) or example.key.startswith(f"{split}/")
            name = example.key if filed else f"{split}/{example.key}"
            if name not in seen:  # a table may have a row for each caption of an image
                seen.add(name)
                yield IndexEntry(name, _stamp(example.image), example)


def refresh(
    index: ImageIndex,
    clip: JointEncoder,
    report: Callable[[str], None] = print,
    save: Callable[[ImageIndex], None] | None = None,
) -> tuple[ImageIndex, Changes]:
    """The index brought up to date with its collection, and what changed.

    Vectors of other weights than `clip`'s are all made anew. save: given unfinished indexes from
    time to time.
    """
    usable = index if index.key == clip.key else ImageIndex(index.source, index.clip, clip.key)
    rows = {name: row for row, name in enumerate(usable.names)}
    known = set(index.names)
    current: dict[str, str] = {}
    fresh: dict[str, Tensor] = {}
    unreadable: list[str] = []

    def wanted() -> Iterator[IndexEntry]:
        for entry in entries_of(index.source):
            current[entry.name] = entry.stamp
            row = rows.get(entry.name)
            if row is None or usable.stamps[row] != entry.stamp:
                yield entry

    for done, (names, images) in enumerate(_batches(wanted(), clip.image_size, unreadable), 1):
        fresh |= dict(zip(names, clip.encode_images(images).cpu(), strict=True))
        if done % max(1, SAVE_EVERY // BATCH) == 0:
            report(f"{len(fresh):,} images embedded so far")
            if save is not None:
                unreached = dict(zip(usable.names, usable.stamps, strict=True))
                save(_assemble(usable, unreached | current, fresh))
    updated = _assemble(usable, current, fresh)
    changes = Changes(
        added=len(fresh.keys() - known),
        refreshed=len(fresh.keys() & known),
        removed=len(known - set(updated.names)),
        kept=len(updated) - len(fresh),
        unreadable=tuple(unreadable),
    )
    return updated, changes


@dataclass(frozen=True)
class Opened:
    """An image of an indexed collection with what the collection says of it."""

    image: Image.Image
    captions: tuple[str, ...]


def open_named(source: DataConfig, names: Collection[str]) -> dict[str, Opened]:
    """Images of a collection by name; those that are gone or damaged are left out."""
    left, found = set(names), {}
    for entry in entries_of(source):
        if entry.name in left:
            left.remove(entry.name)
            try:
                found[entry.name] = Opened(entry.example.open(), entry.example.captions)
            except Exception:  # Pillow fails in many ways on damaged files
                continue
        if not left:
            break
    return found


def index_path(folder: Path, source: DataConfig, clip: str) -> Path:
    """Where a run keeps the index of a collection: a readable name and a hash of the rest."""
    stem = re.sub(r"[^\w-]+", "-", Path(source.path).name).strip("-") or "images"
    digest = hashlib.sha256(json.dumps([source.path, clip]).encode("utf-8", "surrogatepass"))
    return folder / f"{stem}-{digest.hexdigest()[:8]}.safetensors"


def _assemble(
    old: ImageIndex, current: Mapping[str, str], fresh: Mapping[str, Tensor]
) -> ImageIndex:
    """Fresh vectors and those of unchanged images, in the order of `current` (name: stamp)."""
    rows = {name: row for row, name in enumerate(old.names)}
    names, stamps, vectors = [], [], []
    for name, stamp in current.items():
        row = rows.get(name)
        if name in fresh:
            vectors.append(fresh[name])
        elif row is not None and old.stamps[row] == stamp:
            vectors.append(old.vectors[row])
        else:
            continue
        names.append(name)
        stamps.append(stamp)
    stacked = torch.stack(vectors) if vectors else torch.zeros(0, 0)
    return ImageIndex(old.source, old.clip, old.key, tuple(names), tuple(stamps), stacked)


def _batches(
    entries: Iterable[IndexEntry], side: int, unreadable: list[str]
) -> Iterator[tuple[list[str], list[Image.Image]]]:
    """Names and opened images, BATCH at a time; names of those that fail go to `unreadable`."""
    names: list[str] = []
    images: list[Image.Image] = []
    for entry in entries:
        try:
            if not entry.stamp:
                raise FileNotFoundError(entry.name)
            # Fitted at once: a batch of photographs would fill the memory.
            images.append(fit(entry.example.open(side), side))
            names.append(entry.name)
        except Exception:  # Pillow fails in many ways on damaged files
            unreadable.append(entry.name)
        if len(names) == BATCH:
            yield names, images
            names, images = [], []
    if names:
        yield names, images


def _stamp(content: bytes | str | SyntheticImage | None) -> str:
    if isinstance(content, str):
        try:
            status = os.stat(content)
        except OSError:
            return ""
        return f"{status.st_size} {status.st_mtime_ns}"
    if content is None:
        return ""
    data = (
        json.dumps(content.to_dict()).encode() if isinstance(content, SyntheticImage) else content
    )
    return hashlib.blake2b(data, digest_size=16).hexdigest()

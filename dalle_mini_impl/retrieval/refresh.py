"""Brings an image index up to date: embeds new and changed images, removes deleted ones."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from dalle_mini_impl.data.messages import counted
from dalle_mini_impl.retrieval.collection import IndexEntry, entries_of
from dalle_mini_impl.retrieval.encoder import BATCH, JointEncoder
from dalle_mini_impl.retrieval.image_index import ImageIndex

SAVE_EVERY = 8192
"""New images after which an unfinished index is saved, so that an interruption loses little."""


@dataclass(frozen=True)
class Changes:
    """How many images a refresh added, embedded again, removed and kept."""

    added: int = 0
    refreshed: int = 0
    removed: int = 0
    kept: int = 0
    unreadable: tuple[str, ...] = ()
    """Names of images that could not be opened; they are tried again next time."""


def refresh(
    index: ImageIndex,
    clip: JointEncoder,
    report: Callable[[str], None] = print,
    save: Callable[[ImageIndex], None] | None = None,
) -> tuple[ImageIndex, Changes]:
    """The index brought up to date with its collection, and what changed.

    If the index was made with other weights than `clip` has, every image is embedded again.
    save: called from time to time with the unfinished index.
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

    for done, (names, images) in enumerate(_batches(wanted(), clip, unreadable), 1):
        fresh |= dict(zip(names, clip.encode_images(images).cpu(), strict=True))
        if done % max(1, SAVE_EVERY // BATCH) == 0:
            report(f"{counted(len(fresh), 'image')} embedded so far")
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


def _assemble(
    old: ImageIndex, current: Mapping[str, str], fresh: Mapping[str, Tensor]
) -> ImageIndex:
    """An index of the images in `current` (name: stamp) with fresh vectors, or old if unchanged."""
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
    entries: Iterable[IndexEntry], clip: JointEncoder, unreadable: list[str]
) -> Iterator[tuple[list[str], list[Image.Image]]]:
    """Names and opened images, BATCH at a time; names that fail are added to `unreadable`."""
    names: list[str] = []
    images: list[Image.Image] = []
    for entry in entries:
        try:
            if not entry.stamp:
                raise FileNotFoundError(entry.name)
            # Resized at once: a batch of full photographs would fill the memory.
            images.append(clip.prepare(entry.example.open(clip.image_size)))
            names.append(entry.name)
        except Exception:  # Pillow fails in many ways on damaged files
            unreadable.append(entry.name)
        if len(names) == BATCH:
            yield names, images
            names, images = [], []
    if names:
        yield names, images

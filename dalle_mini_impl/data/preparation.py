"""Decodes the images of a split once, into a store; one process at a time."""

import json
import math
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from dalle_mini_impl.data.collections.detect import DataError
from dalle_mini_impl.data.config import MAX_MEGAPIXELS, SYNTHETIC, DataConfig
from dalle_mini_impl.data.copies import PRECEDING, digest, digests, preceding
from dalle_mini_impl.data.examples import Example, Source, unreadable_reason
from dalle_mini_impl.data.messages import counted, first_names
from dalle_mini_impl.data.sources import open_source
from dalle_mini_impl.data.splits import Split
from dalle_mini_impl.data.store import Store, settings_hash, store_digest, stored_line
from dalle_mini_impl.data.workers import map_examples
from dalle_mini_impl.files import atomic_folder, remove_parts
from dalle_mini_impl.images import fit

VERSION = 1
"""Raise it when the preparation of the same files changes."""


def stored_side(config: DataConfig) -> int:
    """Side of the stored images: larger than training's where random crops are taken."""
    return math.ceil(config.image_size / math.sqrt(config.random_resized_crop or 1.0))


def prepare(
    config: DataConfig, split: Split, folder: Path, report: Callable[[str], None] = print
) -> Store:
    """Decodes a split into `folder`, or opens what is there if it was made from the same data.

    Unreadable images are skipped and the first few named; in a captioned collection those
    without captions are skipped too, and so are copies of the images of `PRECEDING` splits, which
    are prepared first. Raises DataError where more than `max_unreadable` fail or a training split
    comes out empty.
    """
    source = open_source(config, split)
    made_from = _made_from(config, split, source)
    target = Path(folder) / split
    target.parent.mkdir(parents=True, exist_ok=True)
    # Another process may be preparing the same.
    with FileLock(target.with_name(f".{split}.lock")):
        if _is_made_from(target, made_from):
            try:
                store = Store.open(target)
                report(f"{split}: {counted(len(store), 'image')} ready in {target}")
                return store
            except DataError as error:
                report(f"{split}: {error}; preparing it again")
        elsewhere = _images_elsewhere(config, split, folder, report)
        size = source.size()
        images = "the images" if size is None else f"at most {counted(size, 'image')}"
        report(f"{split}: preparing {images} of {config.path}")
        started = time.perf_counter()
        remove_parts(target)
        with atomic_folder(target) as temporary:
            _write(config, split, source, made_from, elsewhere, temporary, report)
    store = Store.open(target)
    report(_summary(split, store, source, time.perf_counter() - started))
    return store


def _is_made_from(folder: Path, made_from: list[str]) -> bool:
    """Whether there is a store of this; a torn note counts as none."""
    try:
        return json.loads((folder / "store.json").read_text("utf-8"))["made_from"] == made_from
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _made_from(config: DataConfig, split: Split, source: Source) -> list[str]:
    """Fingerprints of all that is read for a split, its own first; validation may be elsewhere."""
    others = PRECEDING[split] if config.held_out_path is not None else ()
    sources = {split: source} | {other: open_source(config, other) for other in others}
    return [_fingerprint(config, *each) for each in sources.items()]


def _images_elsewhere(
    config: DataConfig, split: Split, folder: Path, report: Callable[[str], None]
) -> set[bytes]:
    """Digests of the images of the preceding splits; generated splits share none."""
    others = [s for s in PRECEDING[split] if open_source(config, s).may_share_images]
    return set().union(*(digests(prepare(config, s, folder, report).images) for s in others))


def _fingerprint(config: DataConfig, split: Split, source: Source) -> str:
    """Hash of everything that determines the content of the store."""
    # Files are identified by name and content, so a moved or copied collection stays the same;
    # the other excluded fields change how the images are used, not their pixels.
    excluded = {"path", "held_out_path", "workers", "max_unreadable", "stream"}
    excluded |= {"horizontal_flip", "random_shift"}
    if config.max_megapixels == MAX_MEGAPIXELS:
        excluded |= {"max_megapixels"}  # stores are older than the setting
    settings = config.model_dump(mode="json", exclude={*excluded, *SYNTHETIC})
    parts = [VERSION, split, stored_side(config), settings, source.fingerprint()]
    return settings_hash(parts)


def _write(
    config: DataConfig,
    split: Split,
    source: Source,
    made_from: list[str],
    elsewhere: set[bytes],
    folder: Path,
    report: Callable[[str], None],
) -> None:
    kept = uncaptioned = 0
    failures: list[str] = []
    copies: list[str] = []
    side = stored_side(config)
    work = partial(_decode, side=side)
    with (
        (folder / "images.u8").open("wb") as pixels,
        (folder / "examples.jsonl").open("w", encoding="utf-8") as lines,
    ):
        for key, captions, attributes, image in map_examples(source, work, config.workers):
            if isinstance(image, str):
                failures.append(f"{key}: {image}")
            elif source.captioned and not captions:
                uncaptioned += 1
            elif elsewhere and digest(image) in elsewhere:
                copies.append(key)
            else:
                lines.write(stored_line(key, captions, attributes))
                pixels.write(image)
                kept += 1
    seen = kept + uncaptioned + len(copies) + len(failures)
    named = first_names(failures)
    if len(failures) > config.max_unreadable * seen:
        raise DataError(
            f"{len(failures):,} of {counted(seen, 'image')} in data.path {config.path!r} "
            "are unreadable, "
            f"more than data.max_unreadable = {config.max_unreadable:g} allows: {named}"
        )
    if failures:
        skipped = f"skipped {len(failures):,} unreadable of {counted(seen, 'image')}"
        report(f"{split}: {skipped}: {named}")
    if kept == 0 and split == "train":
        why = f"all {seen:,} lack a caption" if seen else "none belongs to the training split"
        if copies:
            why = (
                f"{len(copies):,} of {seen:,} have the pixels of {preceding(split)} images; name "
                "another data.held_out_path, or set data.held_out to 0"
            )
        raise DataError(f"data.path {config.path!r} leaves no image to train on: {why}")
    counts = {"unreadable": len(failures), "uncaptioned": uncaptioned, "copies": len(copies)}
    meta: dict[str, Any] = {
        # Without the images left out, it is other data than what the source names.
        "fingerprint": settings_hash([made_from[0], copies]) if copies else made_from[0],
        "made_from": made_from,
        "side": side,
        "captioned": source.captioned,
        "counts": counts,
    }
    meta["digest"] = store_digest(folder, meta)
    (folder / "store.json").write_text(json.dumps(meta, indent=1), "utf-8")


def _decode(
    example: Example, side: int
) -> tuple[str, tuple[str, ...], dict[str, Any] | None, bytes | str]:
    """The example with its pixels, or with the reason why they cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of harmless damage, image by image
            image: bytes | str = np.asarray(fit(example.open(side), side)).tobytes()
    except Exception as error:  # Pillow raises many kinds of error on damaged files
        image = unreadable_reason(error)
    return example.key, example.captions, example.attributes, image


def _summary(split: Split, store: Store, source: Source, seconds: float) -> str:
    text = f"{split}: {counted(len(store), 'image')} in {seconds:.1f} s ({source.description})"
    if store.counts["uncaptioned"]:
        text += f"; skipped {store.counts['uncaptioned']:,} without a caption"
    if store.counts["copies"]:
        copies = store.counts["copies"]
        text += f"; left out {copies:,} that have the pixels of {preceding(split)} images"
    if not store.captioned:
        text += "; nothing has captions, so training is unconditional"
    return text

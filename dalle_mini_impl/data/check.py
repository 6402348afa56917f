"""Reads a whole collection before training and reports what is in it."""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dalle_mini_impl.data.collections.detect import DataError
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.copies import PRECEDING, digest
from dalle_mini_impl.data.examples import Example, SyntheticImage, unreadable_reason
from dalle_mini_impl.data.messages import first_names
from dalle_mini_impl.data.sources import open_source
from dalle_mini_impl.data.splits import SPLITS, Split
from dalle_mini_impl.data.workers import map_examples
from dalle_mini_impl.images import contact_sheet, fit, save_png

SHEET = 64
"""Images on the contact sheet."""
SHOWN = 10


@dataclass(frozen=True)
class CheckedImage:
    """One image of the collection; `failure` says why it could not be read."""

    key: str
    captions: tuple[str, ...]
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    failure: str | None = None
    digest: bytes = b""
    """Equal for equal pixels; empty for generated images, of which no two splits share one."""


@dataclass(frozen=True)
class Report:
    """What a collection contains; str() formats it as a table."""

    path: str
    description: str
    counts: dict[str, int]
    """Images in each split, unreadable ones included."""
    sizes: dict[tuple[int, int], int]
    """(width, height) -> number of images, most frequent first."""
    modes: dict[str, int]
    """Pillow mode -> number of images, most frequent first."""
    unreadable: tuple[str, ...]
    """Key and reason of every image that could not be read."""
    captions: int
    words: tuple[int, ...]
    """Number of words of each caption."""
    tokens: tuple[int, ...] | None
    """Number of tokens of each caption, if a tokenizer was given."""
    uncaptioned: tuple[str, ...]
    """Keys of images without a caption."""
    duplicates: dict[str, int]
    """Captions that several images share -> number of these images, most frequent first."""
    copies: int
    """Images that are left out because they have the pixels of a held-out or validation image."""
    small: int
    """Images whose short side is below the image size, so that they will be enlarged."""
    image_size: int
    sheet: Path | None

    def __str__(self) -> str:
        splits = ", ".join(f"{count:,} {name}" for name, count in self.counts.items() if count)
        rows = [
            ("data", f"{self.path} ({self.description})"),
            ("images", f"{sum(self.counts.values()):,} ({splits or 'none'})"),
            ("sizes", _most_frequent([(f"{w}×{h}", n) for (w, h), n in self.sizes.items()])),
            ("modes", _most_frequent(list(self.modes.items()))),
            ("enlarged", f"{self.small:,} smaller than {self.image_size}×{self.image_size}"),
            ("unreadable", _count_and_names(self.unreadable)),
            ("left out", f"{self.copies:,} copies of validation or held-out images"),
            ("captions", f"{self.captions:,}"),
            ("words", _quantiles(self.words)),
        ]
        if self.tokens is not None:
            rows.append(("tokens", _quantiles(self.tokens)))
        rows.append(("without caption", _count_and_names(self.uncaptioned)))
        shared = [(repr(text), count) for text, count in self.duplicates.items()]
        listed = f": {_most_frequent(shared)}" if shared else ""
        rows.append(("shared captions", f"{len(shared):,}{listed}"))
        if self.sheet is not None:
            rows.append(("contact sheet", str(self.sheet)))
        return "\n".join(f"{name:<16}{text}" for name, text in rows)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "path": self.path,
            "description": self.description,
            "images": self.counts,
            "sizes": [
                {"width": width, "height": height, "images": count}
                for (width, height), count in self.sizes.items()
            ],
            "modes": self.modes,
            "unreadable": self.unreadable,
            "copies": self.copies,
            "captions": self.captions,
            "words": _spread(self.words),
            "tokens": None if self.tokens is None else _spread(self.tokens),
            "without_caption": self.uncaptioned,
            "shared_captions": self.duplicates,
            "enlarged": self.small,
            "image_size": self.image_size,
            "sheet": None if self.sheet is None else str(self.sheet),
        }


def check(
    config: DataConfig,
    sheet: Path | None = None,
    count_tokens: Callable[[Sequence[str]], Sequence[int]] | None = None,
) -> Report:
    """Reads every image and caption of all splits.

    sheet: path of a contact sheet of training images, prepared as for training. count_tokens: the
    number of tokens of each caption. DataError where the collection cannot be read or is empty.
    """
    checked: dict[Split, list[CheckedImage]] = {}
    description = ""
    for split in SPLITS:
        source = open_source(config, split)
        description = source.description if split == "train" else description
        checked[split] = list(
            map_examples(source, partial(_check_image, side=config.image_size), config.workers)
        )
    everything = [item for items in checked.values() for item in items]
    if not everything:
        raise DataError(f"data.path {config.path!r} holds no images ({description})")
    read = [item for item in everything if item.failure is None]
    captions = [caption for item in everything for caption in item.captions]
    counts = Counter(captions)
    if sheet is not None:
        _write_sheet(config, sheet)
    return Report(
        path=config.path,
        description=description,
        counts={split: len(items) for split, items in checked.items()},
        sizes=dict(Counter(item.size for item in read).most_common()),
        modes=dict(Counter(item.mode for item in read).most_common()),
        unreadable=tuple(f"{item.key}: {item.failure}" for item in everything if item.failure),
        captions=len(captions),
        words=tuple(len(caption.split()) for caption in captions),
        tokens=None if count_tokens is None else tuple(count_tokens(captions)),
        uncaptioned=tuple(item.key for item in everything if not item.captions),
        duplicates={text: count for text, count in counts.most_common() if count > 1},
        copies=_count_copies(checked),
        small=sum(min(item.size) < config.image_size for item in read),
        image_size=config.image_size,
        sheet=sheet,
    )


def _check_image(example: Example, side: int) -> CheckedImage:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of harmless damage, image by image
            # Synthetic images have no size of their own: they are rendered at any size.
            image = example.open(side if isinstance(example.image, SyntheticImage) else None)
            size, mode = image.size, image.mode
            pixels = np.asarray(fit(image, side)).tobytes()
    except Exception as error:  # Pillow raises many kinds of error on damaged files
        return CheckedImage(example.key, example.captions, failure=unreadable_reason(error))
    own = b"" if isinstance(example.image, SyntheticImage) else digest(pixels)
    return CheckedImage(example.key, example.captions, size, mode, digest=own)


def _count_copies(checked: Mapping[Split, Sequence[CheckedImage]]) -> int:
    found = {split: {item.digest for item in items} - {b""} for split, items in checked.items()}
    return sum(
        any(item.digest in found[other] for other in PRECEDING[split])
        for split, items in checked.items()
        for item in items
    )


def _write_sheet(config: DataConfig, path: Path) -> None:
    """Writes a fixed sample of the training images, each with its first caption."""
    sample = config.model_copy(update={"limit": 2 * SHEET})
    images: list[Image.Image] = []
    captions: list[str] = []
    for example in open_source(sample, "train"):
        try:
            images.append(fit(example.open(config.image_size), config.image_size))
        except Exception:  # already counted in the report
            continue
        captions.append(example.captions[0] if example.captions else "")
        if len(images) == SHEET:
            break
    scale = max(1, 96 // config.image_size)
    save_png(contact_sheet(images, captions if any(captions) else None, scale=scale), path)


def _most_frequent(pairs: list[tuple[str, int]], limit: int = 5) -> str:
    text = ", ".join(f"{name} ({count:,})" for name, count in pairs[:limit])
    return text + (f" and {len(pairs) - limit:,} more" if len(pairs) > limit else "")


def _count_and_names(items: Sequence[str]) -> str:
    return f"{len(items):,}: {first_names(items, SHOWN)}" if items else "0"


def _spread(values: Sequence[int]) -> dict[str, int] | None:
    if not values:
        return None
    low, middle, high, top = (int(q) for q in np.quantile(values, (0, 0.5, 0.95, 1)))
    return {"least": low, "median": middle, "percentile_95": high, "most": top}


def _quantiles(values: Sequence[int]) -> str:
    spread = _spread(values)
    if spread is None:
        return "none"
    return (
        f"{spread['least']} to {spread['most']}, median {spread['median']}, "
        f"95 % have at most {spread['percentile_95']}"
    )

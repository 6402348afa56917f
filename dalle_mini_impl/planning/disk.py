"""What a run writes to disk: images, codes, weights and checkpoints, in bytes."""

import shutil
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.data.collections.detect import DataError
from dalle_mini_impl.data.collections.tables import TableSource
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.examples import Source
from dalle_mini_impl.data.preparation import stored_side
from dalle_mini_impl.data.sources import open_source
from dalle_mini_impl.data.splits import SPLITS, Split
from dalle_mini_impl.data.store import stored_line
from dalle_mini_impl.experiment import Experiment

GIB = 2**30
CAPTIONS_READ = 64
"""Examples whose captions are measured to estimate the size of all."""


@dataclass(frozen=True)
class DataCost:
    """The collection and what is kept of it."""

    images: dict[Split, int] | None
    """Images of each split, before unreadable ones are left out; none where unknown."""
    unknown: str
    """Why the images cannot be counted; empty where they can."""
    bytes_per_image: int
    """Of the stored pixels alone."""
    store: int | None
    """Bytes of all prepared splits, captions among them."""
    codes: int | None
    """Bytes of the cache of codes."""


def count_data(experiment: Experiment, code_count: int, variants: int) -> DataCost:
    """Counts the configured collection without decoding an image.

    Splits by hash are expected shares. A collection that is not there, or is on the Hub, is
    unknown and says why; nothing is downloaded. variants: encodings of each image in the cache.
    """
    data = experiment.data
    pixels = 3 * stored_side(data) ** 2
    grid = data.image_size // experiment.image_tokenizer.downsampling
    try:
        images, captions = _collection(data)
    except DataError as error:
        return DataCost(None, str(error), pixels, None, None)
    stored = sum(images.values())
    return DataCost(
        images,
        "",
        pixels,
        stored * pixels + round(stored * captions),
        images["train"] * variants * grid**2 * (2 if code_count < 2**16 else 4),
    )


def check_room(cache: Path, cost: DataCost, with_codes: bool) -> None:
    """ConfigError if what a run does not have yet in its cache does not fit on the disk.

    with_codes: whether codes will be made too. What cannot be counted is not checked.
    """
    needed = 0
    if not (cache / "images" / "train" / "store.json").is_file():
        needed += cost.store or 0
    if with_codes and not (cache / "codes" / "codes.json").is_file():
        needed += cost.codes or 0
    free = shutil.disk_usage(cache.parent).free
    if needed > free:
        raise ConfigError(
            f"{cache}: preparing the data takes {needed / GIB:,.1f} GiB, but {free / GIB:,.1f} GiB "
            "are free; free some space, name a --run on another disk, or lower data.image_size or "
            "data.limit"
        )


def _collection(data: DataConfig) -> tuple[dict[Split, int], float]:
    """Images of each split, and the bytes that an image's captions take."""
    if data.path.startswith("hub:"):
        raise DataError(f"data.path {data.path!r} is on the Hub and is read when training begins")
    train = open_source(data, "train")
    size = _size(train, data)
    if not isinstance(train, TableSource):
        images = {split: _size(open_source(data, split), data) for split in SPLITS}
        return images, _caption_bytes(train)
    kept = round(size * data.held_out) if train.by_hash else 0
    images = {"train": size - kept, "validation": kept, "held_out": 0}
    if not train.by_hash:
        images["validation"] = _size(open_source(data, "validation"), data)
    return images, _caption_bytes(train)


def _size(source: Source, data: DataConfig) -> int:
    size = source.size()
    if size is None:
        raise DataError(
            f"data.path {data.path!r} does not say how many images it holds: it is a stream"
        )
    return size


def _caption_bytes(source: Source) -> float:
    lines = [
        stored_line(example.key, example.captions, example.attributes)
        for example in islice(source, CAPTIONS_READ)
    ]
    return sum(len(line.encode()) for line in lines) / max(1, len(lines))

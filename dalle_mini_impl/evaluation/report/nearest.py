"""The nearest training image of each sample, small and beside it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from dalle_mini_impl.data.augment import load_images
from dalle_mini_impl.evaluation.report.page import inline_image
from dalle_mini_impl.images import to_images
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.sampling.record import NearestImage, copy_mark

SIDE = 48
NOTE = "The small image is the nearest training image, by their codes; near copies of it are red."


@dataclass(frozen=True)
class PreparedImages:
    """The images of a store without their captions, which take seconds to read."""

    images: UInt8[np.ndarray, "n h w 3"]

    @classmethod
    def open(cls, folder: Path) -> "PreparedImages | None":
        """Those of a prepared split, None where there are none."""
        try:
            side = json.loads((folder / "store.json").read_text("utf-8"))["side"]
            pixels = np.memmap(folder / "images.u8", np.uint8, "r")
            return cls(pixels.reshape(-1, side, side, 3))
        except (OSError, ValueError, KeyError):
            return None

    def __len__(self) -> int:
        return len(self.images)


class NearestImages:
    """The run's training images, as far as its cache still has them."""

    def __init__(self, run: RunFolder) -> None:
        self.store = PreparedImages.open(run.path / "cache" / "images" / "train")
        self.data = run.experiment.data

    def beside(self, nearest: NearestImage | None) -> str:
        """The training image and how near it is, as HTML; nothing where it is not known."""
        if nearest is None:
            return ""
        tile, at = "", nearest.image
        if self.store is not None and at < len(self.store):
            (image,) = to_images(load_images(self.store, np.array([at]), self.data, None))
            tile = inline_image(image, "training image", SIDE)
        text = copy_mark(nearest) or f"nearest {nearest.likeness:.0%}"
        kind = "nearest copy" if nearest.near_copy else "nearest"
        return f'<div class="{kind}">{tile}<span>{escape(text)}</span></div>'


def nearest_of(record: Mapping[str, Any]) -> NearestImage | None:
    """What a record in JSON says of it."""
    found = record.get("nearest")
    return None if found is None else NearestImage.model_validate(found)

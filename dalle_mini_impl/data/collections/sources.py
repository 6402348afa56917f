"""Any captioned collection as a stream of examples, read by Hugging Face `datasets`.

`detect` says which files a path holds and `columns` what their columns mean; here they are opened,
split into train, validation and held-out, and turned into examples. Nothing is decoded yet.
"""

import io
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image
from pydantic import Field, field_validator, model_validator

from dalle_mini_impl.config import Config
from dalle_mini_impl.data.collections.detect import DataError
from dalle_mini_impl.data.synthetic.panels import Panels, PanelsConfig, render_panels
from dalle_mini_impl.data.synthetic.shapes import Scene, ShapesConfig, Split, render

__all__ = ["SYNTHETIC", "DataConfig", "DataError", "Drawing", "Example", "Source", "open_source"]

SYNTHETIC = ("shapes", "panels")
"""Paths of the collections that are drawn rather than read."""

Drawing = Scene | Panels
"""An image that is drawn when it is opened, at any size."""


class DataConfig(Config):
    """The captioned images: where they are and how they become examples."""

    path: str = "shapes"
    """shapes, panels, or a folder, file, glob or URL of captioned images, or a Hub owner/name."""
    held_out_path: str | None = None
    """Validation images from elsewhere, in place of a share of path; none of them trains."""
    held_out: float = Field(0.05, ge=0, lt=1)
    """Share of the images kept for validation (chosen by a hash of their keys)."""
    held_out_captions: tuple[str, ...] = ()
    """Regular expressions (any case): an image with a matching caption is never trained on."""
    image_size: int = Field(64, ge=8)
    """Side of the square images in pixels."""
    image_column: str | None = None
    """Column of the images or their paths; none detects it."""
    caption_column: str | None = None
    """Column of the captions (json.en reaches into records); none detects it, "" is no captions."""
    label_column: str | None = None
    """Column of class names; none detects it where there are no captions."""
    templates: tuple[str, ...] = ("a photo of a {label}",)
    """Captions made from a class name."""
    stream: bool = False
    """Read shards and Hub data as they arrive instead of copying them to the cache first."""
    limit: int | None = Field(None, ge=1)
    """Use at most this many images of each split."""
    random_resized_crop: float | None = Field(None, gt=0, le=1)
    """Smallest share of the area that a random crop keeps; none crops the center."""
    horizontal_flip: bool = False
    """Mirror half of the images: wrong where captions say left and right."""
    max_unreadable: float = Field(0.05, ge=0, le=1)
    """Share of unreadable images above which preparation stops."""
    workers: int = Field(0, ge=0)
    """Processes that decode images; 0 uses all cores."""
    shapes: ShapesConfig = Field(default_factory=ShapesConfig)
    """The procedural scenes of path shapes."""
    panels: PanelsConfig = Field(default_factory=PanelsConfig)
    """The procedural images of path panels."""

    @model_validator(mode="after")
    def _halves(self) -> "DataConfig":
        if self.path == "panels" and self.image_size % 2:
            raise ValueError(
                f"image_size {self.image_size}: a picture of two panels needs an even number; "
                f"use {self.image_size + 1}"
            )
        return self

    @field_validator("held_out_captions")
    @classmethod
    def _expressions(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"{value!r} is not a regular expression: {error}") from None
        return values

    @field_validator("templates")
    @classmethod
    def _templates(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if "{label}" not in value:
                mend = 'write it like "a photo of a {label}"'
                raise ValueError(f"{value!r} lacks {{label}}: {mend}")
        return values


@dataclass(frozen=True)
class Example:
    """An image that is not decoded yet, with its captions."""

    key: str
    """Names the image within its collection; the same in every run."""
    image: bytes | str | Drawing | None
    """The file's bytes or path, what to draw, or none where the row holds no image."""
    captions: tuple[str, ...]
    attributes: dict[str, Any] | None = None

    def open(self, side: int | None = None) -> Image.Image:
        """The image as it is stored; with `side`, large JPEGs may come reduced, not below it.

        Raises whatever Pillow raises on a missing or damaged file.
        """
        if isinstance(self.image, Scene):
            return render(self.image, side or 64)
        if isinstance(self.image, Panels):
            return render_panels(self.image, side or 64)
        if self.image is None:
            raise ValueError("the row holds no image")
        if isinstance(self.image, str) and "://" in self.image:
            raise ValueError("a URL: download the images first, into a folder or tar shards")
        opened = Image.open(io.BytesIO(self.image) if isinstance(self.image, bytes) else self.image)
        if side is not None:
            opened.draft("RGB", (2 * side, 2 * side))
        opened.load()
        return opened


class Source(ABC):
    """One split of a collection. Iterating gives its examples, always in the same order."""

    captioned: bool
    """Whether the collection has captions at all."""
    description: str
    """What was detected, in a line."""

    @abstractmethod
    def rows(self) -> Iterator[Any]:
        """What `reader` makes examples of: cheap to make and to send to another process."""

    @property
    @abstractmethod
    def reader(self) -> Callable[[Any], Example]:
        """A picklable function from a row to its example."""

    @abstractmethod
    def size(self) -> int | None:
        """How many rows there are at most; none where only reading on would tell."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes whenever the content does."""

    def __iter__(self) -> Iterator[Example]:
        return map(self.reader, self.rows())


def open_source(config: DataConfig, split: Split) -> Source:
    """One split of the configured collection.

    "train" and "validation" never share an image, and neither holds a "held_out" one (a caption
    that matches `held_out_captions`; for shapes, compositions that training never sees).
    Raises DataError where the path or its columns cannot be understood.
    """
    if config.path in SYNTHETIC:
        from dalle_mini_impl.data.synthetic.source import SyntheticSource

        return SyntheticSource(config, split)
    from dalle_mini_impl.data.collections.tables import TableSource

    return TableSource(config, split)

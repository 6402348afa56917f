"""Configuration of the captioned images: where they are and how they become examples."""

import re

from pydantic import Field, field_validator, model_validator

from dalle_mini_impl.config import Config
from dalle_mini_impl.data.synthetic.panels import PanelsConfig
from dalle_mini_impl.data.synthetic.shapes import ShapesConfig

SYNTHETIC = ("shapes", "panels")
"""Paths of the collections that are generated rather than read from files."""
MAX_MEGAPIXELS = 64.0
"""Images with more pixels are not decoded unless a setting says otherwise."""
LARGEST_MEGAPIXELS = 178.0
"""Pillow itself refuses larger images."""


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
    image_size: int = Field(64, ge=8, le=2**13)
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
    limit: int | None = Field(None, ge=1, le=10**10)
    """Use at most this many images of each split."""
    random_resized_crop: float | None = Field(None, gt=0, le=1)
    """Smallest share of the area that a random crop keeps; none crops the center."""
    random_shift: int = Field(0, ge=0, le=2**13)
    """Most pixels by which an image is shifted at random; pixels at the edge are repeated."""
    horizontal_flip: bool = False
    """Mirror half of the images: wrong where captions say left and right."""
    max_unreadable: float = Field(0.05, ge=0, le=1)
    """Share of unreadable images above which preparation stops."""
    max_megapixels: float = Field(MAX_MEGAPIXELS, gt=0, le=LARGEST_MEGAPIXELS)
    """Images with more pixels count as unreadable: a small file may need much time and memory."""
    workers: int = Field(0, ge=0, le=1024)
    """Processes that decode images; 0 uses all cores."""
    shapes: ShapesConfig = Field(default_factory=ShapesConfig)
    """The synthetic scenes of path shapes."""
    panels: PanelsConfig = Field(default_factory=PanelsConfig)
    """The synthetic images of path panels."""

    @model_validator(mode="after")
    def _even_size(self) -> "DataConfig":
        if self.path == "panels" and self.image_size % 2:
            raise ValueError(
                f"image_size {self.image_size}: an image of two panels needs an even size; "
                f"use {self.image_size + 1}"
            )
        return self

    @model_validator(mode="after")
    def _shift_within_image(self) -> "DataConfig":
        if self.random_shift >= self.image_size:
            raise ValueError(
                f"random_shift {self.random_shift}: nothing would be left of images of "
                f"{self.image_size} pixels; use {self.image_size // 8} or less"
            )
        return self

    @field_validator("held_out_captions")
    @classmethod
    def _valid_expressions(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"{value!r} is not a regular expression: {error}") from None
        return values

    @field_validator("templates")
    @classmethod
    def _templates_have_a_label(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if "{label}" not in value:
                raise ValueError(
                    f'{value!r} lacks {{label}}: write it like "a photo of a {{label}}"'
                )
        return values

"""How images are made square for a CLIP: as they were when it was trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image, ImageOps

from dalle_mini_impl.images import center_square, to_rgb

OPEN_CLIP_MODES: dict[str, Literal["crop", "squash", "pad"]] = {
    "shortest": "crop",
    "squash": "squash",
    "longest": "pad",
}
"""open_clip's `resize_mode`."""


@dataclass(frozen=True)
class Preprocessing:
    """Makes images square."""

    mode: Literal["crop", "squash", "pad"] = "crop"
    """Crop the center, change the proportions, or fill up what the long side leaves free."""
    resampling: Image.Resampling = Image.Resampling.BICUBIC
    fill: tuple[int, int, int] = (0, 0, 0)

    def __call__(self, image: Image.Image, size: int) -> Image.Image:
        """The image in RGB with size × size pixels."""
        image = to_rgb(image)
        if image.size == (size, size):
            return image
        if self.mode == "pad":
            return ImageOps.pad(image, (size, size), self.resampling, color=self.fill)
        box = center_square(image) if self.mode == "crop" else None
        # reducing_gap shrinks very large images in two steps: faster, with no visible difference.
        return image.resize((size, size), self.resampling, box=box, reducing_gap=3.0)

    @classmethod
    def of_transformers(cls, processor: Mapping[str, Any]) -> "Preprocessing":
        """What a preprocessor_config.json says: SigLIP's has two sides, CLIP's one edge."""
        size = processor.get("size")
        squash = isinstance(size, Mapping) and {"height", "width"} <= size.keys()
        resampling = Image.Resampling(processor.get("resample", Image.Resampling.BICUBIC))
        return cls("squash" if squash else "crop", resampling)

    @classmethod
    def of_open_clip(cls, settings: Mapping[str, Any]) -> "Preprocessing":
        """What a model's `preprocess_cfg` says."""
        fill = settings.get("fill_color") or 0
        bilinear = settings.get("interpolation") == "bilinear"
        return cls(
            OPEN_CLIP_MODES[settings.get("resize_mode") or "shortest"],
            Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC,
            (fill, fill, fill) if isinstance(fill, int) else tuple(fill),
        )

"""Settings of the autoencoders; `--help` reads them without importing torch."""

import math
from typing import Literal, TypeAlias

from pydantic import Field

from dalle_mini_impl.config import Config


class ConvolutionsConfig(Config):
    """A convolutional encoder and decoder."""

    type: Literal["convolutions"] = "convolutions"
    """For images of any kind: a code depends on its surroundings too."""
    patch: int = Field(4, gt=0, le=1024)
    """Pixels per side that the stem folds into channels; a power of two, at most downsampling."""
    width: int = Field(64, gt=0, le=2**13)
    """Channels at the code grid; each finer level has half, and a patch encoder twice as many."""
    blocks: int = Field(2, ge=0, le=256)
    """Residual blocks per level, in the encoder and in the decoder."""
    attention: int = Field(0, ge=0, le=256)
    """Self-attention blocks at the code grid, in the decoder and a convolutional encoder."""

    def widths(self, downsampling: int) -> list[int]:
        """Channels per level, the finest first and the code grid last."""
        levels = int(math.log2(downsampling // self.patch)) + 1
        return [max(32, self.width // 2**i) for i in reversed(range(1, levels))] + [self.width]


class PatchesConfig(ConvolutionsConfig):
    """A patch-wise encoder and a convolutional decoder."""

    type: Literal["patches"] = "patches"  # type: ignore[assignment]
    """A code depends on its own patch, and on `margin` pixels around it."""
    margin: int = Field(0, ge=0, le=1024)
    """Pixels around its patch that a code depends on, a multiple of `patch`; 0: none."""


class FormAndColorConfig(PatchesConfig):
    """Form and colors apart: the first factor is the form, the others the colors."""

    type: Literal["form_and_color"] = "form_and_color"  # type: ignore[assignment]
    """For drawings and icons on a plain background; form and color codes recombine."""


class PaletteConfig(Config):
    """Patches as patterns and colors; the first factor is the pattern, the others the colors."""

    type: Literal["palette"] = "palette"
    """For flat images such as drawings on the grid; its pattern and color codes recombine."""
    colors: int = Field(2, gt=1, le=64)
    """Colors in a patch."""
    width: int = Field(128, gt=0, le=2**13)
    """Channels of the encoder and the decoder."""
    blocks: int = Field(2, ge=0, le=256)
    """Residual blocks in each of their parts."""


AutoencoderConfig: TypeAlias = (
    ConvolutionsConfig | PatchesConfig | FormAndColorConfig | PaletteConfig
)

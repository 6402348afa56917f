"""What is kept of an image: its codes and pixels outside the part that is to be sampled."""

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from dalle_mini_impl.images import center_square, to_rgb, to_tensor
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer
from dalle_mini_impl.pipeline.recorded_codes import encode_image
from dalle_mini_impl.sampling.given import Given

SEAM = 4
"""A cell's width over that of the seam."""


def given_by_rows(tokenizer: ImageTokenizer, image: Image.Image, keep_rows: int) -> Given:
    """The image with all but the first `keep_rows` rows of codes free, as for completion."""
    grid = tokenizer.grid
    if not 0 < keep_rows < grid:
        raise ValueError(
            f"keep_rows is {keep_rows}: the code grid has {grid} rows, keep 1 to {grid - 1}"
        )
    return _given(tokenizer, image, torch.arange(grid**2) >= keep_rows * grid)


def given_by_mask(tokenizer: ImageTokenizer, image: Image.Image, mask: Image.Image) -> Given:
    """The image with the codes free that the mask touches, as for inpainting."""
    if mask.size != image.size:
        raise ValueError(
            f"the mask has {mask.size[0]}×{mask.size[1]} pixels and the image "
            f"{image.size[0]}×{image.size[1]}: give a mask of the image's size"
        )
    touched = _touched_cells(mask, tokenizer.grid).reshape(-1)
    if not touched.any():
        raise ValueError(
            "the mask is black in the whole square that is kept after cropping: make white "
            "what is to be sampled again"
        )
    return _given(tokenizer, image, torch.from_numpy(touched))


def _given(tokenizer: ImageTokenizer, image: Image.Image, free: Bool[Tensor, "n"]) -> Given:
    """The image's codes and pixels but for the free cells."""
    codes = encode_image(tokenizer, image)
    codes = codes.masked_fill(free.to(codes.device), -1)
    # A seam within the kept cells: more would change more of what is to be kept.
    seam = tokenizer.downsampling // SEAM
    return Given(codes, to_tensor([image], tokenizer.image_size)[0], seam)


def _touched_cells(mask: Image.Image, grid: int) -> np.ndarray:
    """Which cells of a grid over the mask's center square hold any white: bool `grid grid`."""
    white = to_rgb(mask).convert("L").point(lambda level: 255 * (level > 127)).convert("F")
    # The mean over a cell is positive however thin a stroke is.
    means = white.resize((grid, grid), Image.Resampling.BOX, box=center_square(white))
    return np.asarray(means) > 0

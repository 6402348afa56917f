"""Codes to keep: those of an image outside the part that is to be sampled, which has -1."""

import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from dalle_mini_impl.images import to_tensor, touched_cells
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer


def given_by_rows(
    tokenizer: ImageTokenizer, image: Image.Image, keep_rows: int
) -> Int[Tensor, "n"]:
    """The image's codes with all but the first `keep_rows` rows free, as for completion."""
    grid = tokenizer.grid
    if not 0 < keep_rows < grid:
        raise ValueError(
            f"keep_rows is {keep_rows}: the code grid has {grid} rows, keep 1 to {grid - 1}"
        )
    given = encode_image(tokenizer, image)
    given[keep_rows * grid :] = -1
    return given


def given_by_mask(
    tokenizer: ImageTokenizer, image: Image.Image, mask: Image.Image
) -> Int[Tensor, "n"]:
    """The image's codes with those free that the mask touches, as for inpainting."""
    if mask.size != image.size:
        raise ValueError(
            f"the mask has {mask.size[0]}×{mask.size[1]} pixels and the image "
            f"{image.size[0]}×{image.size[1]}: give a mask of the image's size"
        )
    touched = touched_cells(mask, tokenizer.grid).reshape(-1)
    if not touched.any():
        raise ValueError(
            "the mask is black in the whole square that is kept after cropping: make white "
            "what is to be sampled again"
        )
    given = encode_image(tokenizer, image)
    given[torch.from_numpy(touched).to(given.device)] = -1
    return given


def encode_image(tokenizer: ImageTokenizer, image: Image.Image) -> Int[Tensor, "n"]:
    """An image's codes, after the same resize and crop as in training."""
    device = next(tokenizer.parameters()).device
    return tokenizer.encode(to_tensor([image], tokenizer.image_size).to(device))[0]

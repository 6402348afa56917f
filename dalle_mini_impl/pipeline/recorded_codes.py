"""The codes that a sampled image carries: encoding it again would give others."""

import torch
from einops import reduce
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from dalle_mini_impl.images import to_tensor
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer
from dalle_mini_impl.sampling.record import find_record

TOLERANCE = 4
"""Levels of 256 by which pixels may differ, as on another device; encoding differs by far more."""


@torch.no_grad()
def encode_image(tokenizer: ImageTokenizer, image: Image.Image) -> Int[Tensor, "n"]:
    """An image's codes, after the same resize and crop as in training.

    Where a code in the image's record decodes to the image's own pixels, it is taken; a wrong
    record, another image tokenizer's or one from before the image was edited changes nothing.
    """
    device = next(tokenizer.parameters()).device
    pixels = to_tensor([image], tokenizer.image_size).to(device)
    codes = tokenizer.encode(pixels)[0]
    record = find_record(image)
    if record is None or len(record.codes) != len(codes):
        return codes
    if max(record.codes) >= tokenizer.code_count:
        return codes
    recorded = torch.tensor(record.codes, device=device)
    difference = (tokenizer.decode(recorded[None])[0] - pixels[0]).abs()
    grid = tokenizer.grid
    worst = reduce(difference, "c (y a) (x b) -> (y x)", "max", y=grid, x=grid)
    return torch.where(worst <= TOLERANCE / 255, recorded, codes)

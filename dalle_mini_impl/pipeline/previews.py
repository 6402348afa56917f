"""Images while they are being sampled: the codes there are, decoded, and gray for the rest."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from dalle_mini_impl.images import to_images
from dalle_mini_impl.kernels.chunks import in_chunks
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer
from dalle_mini_impl.sampling.sampler import Progress

Callback = Callable[[int, list[Image.Image]], object]
"""Called after each row of codes with the number of codes that each image has, and the images."""


def decoding(
    tokenizer: ImageTokenizer, given: Int[Tensor, "n"] | None, callback: Callback
) -> Progress:
    """What the sampler calls: it decodes the codes there are and calls `callback`."""

    def progress(step: int, codes: Int[Tensor, "b n"]) -> None:
        callback(step, to_images(unfinished(tokenizer, codes, step, given)))

    return progress


def unfinished(
    tokenizer: ImageTokenizer,
    codes: Int[Tensor, "b n"],
    step: int,
    given: Int[Tensor, "n"] | None = None,
) -> Float[Tensor, "b 3 h w"]:
    """Images of which the first `step` codes are sampled; cells without a code are gray."""
    known = torch.arange(codes.shape[1], device=codes.device) < step
    if given is not None:
        given = given.to(codes.device)
        codes = torch.where(given >= 0, given, codes)
        known = known | (given >= 0)
    # An image's first code stands for those to come: it often shows the background.
    pixels = in_chunks(tokenizer.decode, torch.where(known, codes, codes[:, :1]))
    cells = known.view(tokenizer.grid, tokenizer.grid)
    cell = pixels.shape[-1] // tokenizer.grid
    shown = cells.repeat_interleave(cell, dim=0).repeat_interleave(cell, dim=1)
    return torch.where(shown, pixels, 0.5)

"""What completion and inpainting keep of an image: codes, and the pixels that they stand for."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Given(NamedTuple):
    """What every sampled image keeps of another one."""

    codes: Int[Tensor, "n"]
    """Codes to keep, -1 where they are to be sampled."""
    pixels: Float[Tensor, "3 h w"] | None = None
    """The other image: its pixels are pasted where codes are kept; None decodes them all."""
    seam: int = 0
    """Kept pixels next to sampled ones that fade from one image to the other."""

    def paste(self, decoded: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """The decoded images with the pixels that are kept."""
        if self.pixels is None:
            return decoded
        grid = round(len(self.codes) ** 0.5)
        kept = (self.codes >= 0).view(grid, grid)
        return paste_kept(
            decoded, self.pixels.to(decoded.device), kept.to(decoded.device), self.seam
        )


def paste_kept(
    decoded: Float[Tensor, "b 3 h w"],
    original: Float[Tensor, "3 h w"],
    kept: Bool[Tensor, "g g"],
    seam: int,
) -> Float[Tensor, "b 3 h w"]:
    """The decoded images with the original's pixels in the kept cells.

    Kept pixels are rounded to 8 bits, as in a file, so that pasting from that file changes nothing.
    """
    cell = original.shape[-1] // len(kept)
    inside = kept.repeat_interleave(cell, 0).repeat_interleave(cell, 1).to(decoded.dtype)[None]
    free = 1 - inside
    # How many of the seam's pixels lie between a kept pixel and the nearest sampled one.
    steps = [1 - F.max_pool2d(free, 2 * k + 1, 1, k) for k in range(1, seam + 1)]
    share = torch.stack([inside, *steps]).mean(dim=0)
    blended = torch.lerp(decoded, original.expand_as(decoded), share.expand_as(decoded))
    return torch.where(inside.bool(), (blended * 255).round() / 255, decoded)

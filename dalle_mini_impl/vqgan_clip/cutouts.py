"""Random cutouts of images, differentiable in their pixels.

With one fixed view per image, the gradient would find pixels that raise the score and show nothing.
Crop, flip and perspective are one projective map per cutout.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from dalle_mini_impl.vqgan_clip.config import CutoutsConfig


@dataclass(frozen=True)
class Cutouts:
    """Parameters of random cutouts, made at once so that they do not depend on the chunk size."""

    maps: Float[Tensor, "n 3 3"]
    """Projective map of each cutout: from its own coordinates in [-1, 1]² to the image's."""
    brightness: Float[Tensor, "n"]
    contrast: Float[Tensor, "n"]
    saturation: Float[Tensor, "n"]
    seeds: Int[Tensor, "n"]
    """Of each cutout's noise."""
    noise: float

    def split(self, count: int) -> "list[Cutouts]":
        """The same cutouts, at most `count` in each part."""
        tensors = (self.maps, self.brightness, self.contrast, self.saturation, self.seeds)
        return [
            Cutouts(maps, brightness, contrast, saturation, seeds, self.noise)
            for maps, brightness, contrast, saturation, seeds in zip(
                *(tensor.split(count) for tensor in tensors), strict=True
            )
        ]

    def __len__(self) -> int:
        return len(self.maps)


CORNERS = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))


def random_cutouts(config: CutoutsConfig, generator: torch.Generator) -> Cutouts:
    """`config.count` random cutouts."""
    count = config.count

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) * 2 - 1

    cropped = torch.arange(count) >= round(config.whole * count)
    side = 1 - (1 - config.smallest) * torch.rand(count, generator=generator) * cropped
    center = uniform(count, 2) * (1 - side[:, None])
    corners = center[:, None] + side[:, None, None] * torch.tensor(CORNERS)
    corners = corners + 2 * config.perspective * uniform(count, 4, 2)
    mirrored = corners[:, [1, 0, 3, 2]]
    flipped = (uniform(count) > 0) & config.flip
    corners = torch.where(flipped[:, None, None], mirrored, corners)
    brightness, contrast, saturation = config.color * uniform(3, count)
    seeds = torch.randint(2**31, (count,), generator=generator)
    return Cutouts(
        projective_maps(corners), brightness, 1 + contrast, 1 + saturation, seeds, config.noise
    )


def make_cutouts(
    images: Float[Tensor, "b 3 h w"], cutouts: Cutouts, size: int
) -> Float[Tensor, "m 3 {size} {size}"]:
    """Every cutout of every image at size × size: m = cutouts · b, the images varying fastest.

    Changed colors may leave [0, 1]: clipping them would stop the gradient there.
    """
    shrink = min(images.shape[-2:]) // size
    if shrink > 1:
        # Sampling sparsely from a larger image would skip pixels.
        images = F.avg_pool2d(images, shrink)
    batch = len(images)
    shown = repeat(images, "b c h w -> (n b) c h w", n=len(cutouts))
    maps = cutouts.maps.to(images).repeat_interleave(batch, dim=0)
    x = warp(shown, maps, size)

    def each(values: Tensor) -> Tensor:
        return values.to(x).repeat_interleave(batch)[:, None, None, None]

    x = torch.lerp(x.mean(dim=1, keepdim=True), x, each(cutouts.saturation))
    x = (x - 0.5) * each(cutouts.contrast) + 0.5 + each(cutouts.brightness)
    if cutouts.noise == 0:
        return x
    grains = []
    for seed in cutouts.seeds.tolist():
        own = torch.Generator().manual_seed(seed)
        grains.append(torch.randn(batch, 3, size, size, generator=own))
    return x + cutouts.noise * torch.cat(grains).to(x)


def warp(
    images: Float[Tensor, "b c h w"], maps: Float[Tensor, "b 3 3"], size: int
) -> Float[Tensor, "b c {size} {size}"]:
    """Images under projective maps; beyond the border, its pixels are repeated."""
    axis = (torch.arange(size, device=images.device) * 2 + 1) / size - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    points = torch.stack((x, y, torch.ones_like(x)), dim=-1).to(images)
    mapped = torch.einsum("bij,hwj->bhwi", maps, points)
    grid = mapped[..., :2] / mapped[..., 2:]
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def projective_maps(corners: Float[Tensor, "n 4 2"]) -> Float[Tensor, "n 3 3"]:
    """The maps that take the corners of [-1, 1]² to the given ones, in the order of CORNERS."""
    n = len(corners)
    x, y = torch.tensor(CORNERS).unbind(-1)
    one, zero = torch.ones(4), torch.zeros(4)
    u, v = corners.unbind(-1)

    def block(values: list[Tensor]) -> Tensor:
        return torch.stack([value.expand(n, 4) for value in values], dim=-1)

    # u = (a x + b y + c) / (g x + h y + 1) and v alike: two linear equations for each corner.
    rows = torch.cat(
        (
            block([x, y, one, zero, zero, zero, -x * u, -y * u]),
            block([zero, zero, zero, x, y, one, -x * v, -y * v]),
        ),
        dim=1,
    )
    solved = torch.linalg.solve(rows, torch.cat((u, v), dim=1))
    return rearrange(torch.cat((solved, torch.ones(n, 1)), dim=1), "n (i j) -> n i j", i=3)

"""Fits soft masks of canonical shapes to what an object covers in an image."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageFilter
from scipy import ndimage

from dalle_mini_impl.data.synthetic.rendering import shape_mask
from dalle_mini_impl.data.synthetic.scenes import CANVAS, SHAPES

BLURS = (0.0, 0.4, 0.8, 1.2, 1.6)
"""Radii in pixels that canonical shapes are blurred by before the comparison."""

CLOSE = 0.1
"""Overlap that a shape may lack to the best one and still be fitted closely."""

MARGIN = 3
"""Pixels around an object's box in which its blurred edge is compared as well."""

RAGGED = 3.5
"""Of nine pixels, three by three, how many may be wrong before a person sees it."""

EIGHT = np.ones((3, 3), dtype=bool)
"""Pixels that touch at a corner are connected as well."""


class Cover:
    """How much of each pixel an object covers, with its area and centroid."""

    def __init__(self, cover: Float[np.ndarray, "h w"]) -> None:
        self.area = max(float(cover.sum()), 1e-6)
        self.x = float(cover.sum(0) @ (np.arange(cover.shape[1]) + 0.5)) / self.area
        self.y = float(cover.sum(1) @ (np.arange(cover.shape[0]) + 0.5)) / self.area
        self.padded = np.pad(cover, CANVAS + 2 * MARGIN)

    def windows(self, side: int, left: int, top: int, count: int) -> Float[np.ndarray, "n n a a"]:
        """Parts as large as a box with its margin, from a place and the next ones on."""
        x, y, reach = left + CANVAS + MARGIN, top + CANVAS + MARGIN, side + 2 * MARGIN
        part = self.padded[y : y + reach + count - 1, x : x + reach + count - 1]
        return sliding_window_view(part, (reach, reach))


@dataclass(frozen=True)
class Fit:
    """A shape in a box, by the soft mask that overlaps most with a cover."""

    shape: str
    side: int
    left: int
    top: int
    mask: Float[np.ndarray, "h w"]
    """With MARGIN around the box."""
    overlap: float
    """Intersection over union of the soft masks."""


def soften(cover: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """The cover in [0, 1], without noise on the background and inside the object."""
    return np.clip((cover - 0.15) / 0.7, 0, 1)


def best_fit(cover: Cover) -> Fit:
    """The shape that overlaps most, at whole pixels."""
    fits = [_fit_by_moments(cover, shape) for shape in SHAPES]
    least = max(fit.overlap for fit in fits) - CLOSE
    near = (refine(cover, fit) for fit in fits if fit.overlap >= least)
    return max(near, key=lambda fit: fit.overlap)


def _fit_by_moments(cover: Cover, shape: str) -> Fit:
    """The shape fitted to the cover's area and centroid.

    Unlike a bounding box, these hardly change where blur removes thin tips.
    """
    fill, center_x, center_y = _moments(shape)
    side = min(CANVAS, max(4, round((cover.area / fill) ** 0.5)))
    left, top = round(cover.x - center_x * side), round(cover.y - center_y * side)
    return _slide(cover, shape, side, left, top, 1)


def refine(cover: Cover, fit: Fit, halves: bool = False) -> Fit:
    """The best fit at most a pixel away, also in its side.

    halves: also at half pixels, where the edges of a true shape may lie as well.
    """
    near = (
        _slide(cover, fit.shape, side, fit.left - 1, fit.top - 1, 2 if halves else 3, halves)
        for side in (fit.side - 1, fit.side, fit.side + 1)
    )
    return max(near, key=lambda found: found.overlap)


def ragged_parts(cover: Cover, fit: Fit, wrong: Bool[np.ndarray, "n n"]) -> int:
    """Places where the object and its shape visibly differ.

    wrong: pixels of the fit's mask that are wrong whatever the object covers of them.
    """
    window = cover.windows(fit.side, fit.left, fit.top, 1)[0, 0]
    miss = np.where(wrong, 1, np.abs(window - fit.mask))
    nearby = 9 * ndimage.uniform_filter(miss, 3, mode="constant")
    return int(ndimage.label(nearby > RAGGED, EIGHT)[1])


def _slide(
    cover: Cover, shape: str, side: int, left: int, top: int, count: int, halves: bool = False
) -> Fit:
    """The best fit with this side at `count` × `count` places, from (left, top) on."""
    masks, areas = _soft_masks(shape, side, halves)
    windows = cover.windows(side, left, top, count)
    common = np.minimum(masks[:, None, None], windows).sum((-2, -1))
    overlaps = common / (cover.area + areas[:, None, None] - common)
    at, dy, dx = map(int, np.unravel_index(int(overlaps.argmax()), overlaps.shape))
    return Fit(shape, side, left + dx, top + dy, masks[at], float(overlaps[at, dy, dx]))


@lru_cache(maxsize=16)
def _moments(shape: str) -> tuple[float, float, float]:
    """Covered share of a unit box and the centroid's x and y in it."""
    cover = np.asarray(shape_mask(shape, 96, 96), dtype=np.float64) / 255
    at = (np.arange(96) + 0.5) / 96
    return (
        cover.mean(),
        cover.mean(0) @ at / cover.sum() * 96,
        cover.mean(1) @ at / cover.sum() * 96,
    )


@lru_cache(maxsize=1024)
def _soft_masks(
    shape: str, side: int, halves: bool
) -> tuple[Float[np.ndarray, "n h w"], Float[np.ndarray, "n"]]:
    """Soft masks of a shape by blur, in a box of `side` with MARGIN around it; their areas.

    halves: each also half a pixel further to the right, downwards, and both.
    """
    reach, steps = side + 2 * MARGIN, (0, 1) if halves else (0,)
    masks = []
    for x, y in [(x, y) for x in steps for y in steps]:
        plain = Image.new("L", (reach, reach), 0)
        plain.paste(shape_mask(shape, side, side), (MARGIN, MARGIN))
        if x or y:
            double = Image.new("L", (2 * reach, 2 * reach), 0)
            double.paste(shape_mask(shape, 2 * side, 2 * side), (2 * MARGIN + x, 2 * MARGIN + y))
            plain = double.reduce(2)
        masks += [np.asarray(plain.filter(ImageFilter.GaussianBlur(radius))) for radius in BLURS]
    soft = soften(np.stack(masks).astype(np.float32) / 255)
    return soft, soft.sum((1, 2))

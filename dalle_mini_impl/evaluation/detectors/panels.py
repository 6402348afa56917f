"""Detects the objects in both halves of an image of two panels, from its pixels alone.

`judge_change` (suites/panels.py) decides whether the lower half is right. The background is the
most frequent one; objects are connected pieces. A piece has the color whose mixtures with the
background fit its pixels best (thin outlines rarely reach their full color), and the shape and
style that overlap with it most.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageFilter
from scipy import ndimage

from dalle_mini_impl.data.synthetic.panels import (
    HEIGHT,
    SIDES,
    Panel,
    PanelObject,
    Style,
)
from dalle_mini_impl.data.synthetic.rendering import outline_mask, shape_mask
from dalle_mini_impl.data.synthetic.scenes import COLORS, SHAPES
from dalle_mini_impl.evaluation.detectors.fitting import BLURS, EIGHT, soften
from dalle_mini_impl.evaluation.detectors.scenes import (
    CLEAN,
    CONTRAST,
    SPECK,
    UNKNOWN,
    find_background,
    on_canvas,
)


@dataclass(frozen=True)
class FoundPanelObject(PanelObject):
    """An object of a half, and its overlap with the canonical shape that fits it best."""

    overlap: float = 1.0


@dataclass(frozen=True)
class FoundPanel(Panel):
    """What one half of an image shows."""

    objects: tuple[FoundPanelObject, ...]
    specks: int
    """Visible pieces too small for an object."""


STYLES: tuple[Style, ...] = ("filled", "outline")

RESEMBLANCE: dict[Style, float] = {"filled": 0.75, "outline": 0.55}
"""Least overlap of soft masks; the same small error costs an outline more of its overlap."""

FOREIGN: dict[Style, float] = {"filled": 0.2, "outline": 0.4}
"""Share of pixels in other colors above which a piece is not an object of one color."""

SEAM = 3
"""Rows beside the other half that its colors reach in a blurred image."""

MARGIN = 2
"""Pixels around an object's box in which its blurred edge is compared as well."""

SLACK = 1
"""Pixels around the estimated position in which the best fit is searched."""

CLOSE = 12
"""How many shapes and sides are fitted with this slack."""

PADDING = 32
"""Pixels around a half that the best fit may reach."""


def find_panels(image: UInt8[np.ndarray, "h w 3"]) -> tuple[FoundPanel, FoundPanel]:
    """The upper and the lower half of a square image of any size, each as a panel.

    Positions are those of the 64-pixel canvas, counted from the top of each half. Raises
    ValueError for an image that is not square.
    """
    pixels = on_canvas(image)
    above, below = pixels[:HEIGHT], pixels[HEIGHT:]
    (upper, upper_name), (lower, lower_name) = find_background(above), find_background(below)
    return (
        _read_half(above - upper, upper, lower - upper, slice(-SEAM, None), upper_name),
        _read_half(below - lower, lower, upper - lower, slice(0, SEAM), lower_name),
    )


def _read_half(
    offsets: Float[np.ndarray, "h w 3"],
    ground: Float[np.ndarray, "3"],
    other: Float[np.ndarray, "3"],
    seam: slice,
    name: str,
) -> FoundPanel:
    """The objects of one half.

    offsets: its pixels minus its background, `ground`. other: the other half's background minus
    `ground`. seam: the rows beside the other half, where a blurred image mixes the two.
    name: that of its background.
    """
    share = np.clip(offsets @ (other / max(float(other @ other), 1.0)), 0, 1)
    mixed = ((offsets - share[..., None] * other) ** 2).sum(-1) < 40.0**2
    foreground = (offsets**2).sum(-1) > CONTRAST**2
    foreground[seam] &= ~mixed[seam]
    piece_of, _ = ndimage.label(_filled(foreground), EIGHT)
    objects: list[FoundPanelObject] = []
    specks = 0
    for at, (rows, columns) in enumerate(ndimage.find_objects(piece_of), start=1):
        piece = piece_of == at
        # A flatter piece is an error at the seam, or the edge of an object in the other half.
        flat = rows.stop - rows.start <= SEAM
        if piece[rows, columns].sum() >= SPECK and not flat:
            objects.append(_read_object(offsets, piece, ground))
        elif not (flat and piece[seam].any()):
            specks += 1
    return FoundPanel(tuple(objects), name, specks)


def is_clean(panel: FoundPanel) -> bool:
    """The strict grade of a half: canonical shapes only, and nothing else."""
    return not panel.specks and all(item.overlap >= CLEAN for item in panel.objects)


def _filled(foreground: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The foreground with its holes filled, so that an outline and its inside are one piece.

    Small gaps in an outline are closed.
    """
    closed = ndimage.binary_closing(np.pad(foreground, 2), EIGHT)[2:-2, 2:-2]
    return ndimage.binary_fill_holes(foreground | closed)


def _read_object(
    offsets: Float[np.ndarray, "h w 3"],
    piece: Bool[np.ndarray, "h w"],
    ground: Float[np.ndarray, "3"],
) -> FoundPanelObject:
    """The object that a piece of the half shows; its shape may be UNKNOWN."""
    near = ndimage.binary_dilation(piece, EIGHT, iterations=2)
    values = offsets * near[..., None]
    color, cover, foreign = _color(values, ground)
    # Noise on the background must not add to the cover, nor noise inside the object reduce it.
    cover = near * soften(cover)
    rows, columns = ndimage.find_objects(piece.astype(int))[0]
    center = (columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2
    padded = np.pad(cover, PADDING)
    fits = [_fit(padded, shape, side, *center, 0) for shape in SHAPES for side in SIDES]
    close = (_fit(padded, *fit[1:3], *center, SLACK) for fit in sorted(fits)[-CLOSE:])
    overlap, shape, side, style, left, top = max(close)
    if overlap < RESEMBLANCE[style] or foreign > FOREIGN[style]:
        shape = UNKNOWN
    return FoundPanelObject(shape, color, side, left, top, style, overlap)


def _color(
    values: Float[np.ndarray, "h w 3"], ground: Float[np.ndarray, "3"]
) -> tuple[str, Float[np.ndarray, "h w"], float]:
    """The color whose mixtures with the background fit best, its cover, and the rest's share.

    values: pixels minus the background, zero outside the piece. Pixels far from the mixtures of
    this color have another one; their cover is zero.
    """
    names = tuple(COLORS)
    palette = np.array([COLORS[name] for name in names], dtype=np.float32) - ground
    covers = np.clip(values @ (palette.T / (palette**2).sum(-1)), 0, 1)
    misses = ((values[:, :, None] - covers[..., None] * palette) ** 2).sum(-1)
    best = int(np.minimum(misses, 100.0**2).sum((0, 1)).argmin())
    away = misses[..., best] > 60.0**2
    shown = (values**2).sum(-1) > CONTRAST**2
    foreign = float((away & shown).sum() / max(shown.sum(), 1))
    return names[best], np.where(away, 0, covers[..., best]).astype(np.float32), foreign


def _fit(
    padded: Float[np.ndarray, "h w"], shape: str, side: int, x: float, y: float, slack: int
) -> tuple[float, str, int, Style, int, int]:
    """The best overlap near a center: overlap, shape, side, style, left and top.

    padded: a cover with PADDING around it. slack: pixels from the center.
    """
    covers, sums = _templates(shape, side)
    left, top = round(x - side / 2) - slack, round(y - side / 2) - slack
    # From `slack` before the position to `slack` after it, with MARGIN around each box.
    reach = side + 2 * (slack + MARGIN)
    row, column = top + PADDING - MARGIN, left + PADDING - MARGIN
    windows = sliding_window_view(
        padded[row : row + reach, column : column + reach], covers.shape[2:]
    )
    common = np.minimum(covers[:, :, None, None], windows).sum((-2, -1))
    overlaps = common / (float(padded.sum()) + sums[..., None, None] - common)
    style, _, dy, dx = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
    return float(overlaps.max()), shape, side, STYLES[style], left + int(dx), top + int(dy)


@lru_cache(maxsize=128)
def _templates(
    shape: str, side: int
) -> tuple[Float[np.ndarray, "styles blurs h w"], Float[np.ndarray, "styles blurs"]]:
    """Soft masks of a shape by style and blur, with MARGIN pixels around it; their areas."""
    covers = []
    for cover in (shape_mask(shape, side, side), outline_mask(shape, side)):
        plain = Image.new("L", (side + 2 * MARGIN, side + 2 * MARGIN), 0)
        plain.paste(cover, (MARGIN, MARGIN))
        covers.append([np.asarray(plain.filter(ImageFilter.GaussianBlur(r))) for r in BLURS])
    soft = soften(np.array(covers, dtype=np.float32) / 255)
    return soft, soft.sum((2, 3))

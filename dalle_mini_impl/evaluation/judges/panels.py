"""A judge by rule for images of two panels: is the lower half the asked change of the upper?

Each half is read from its pixels alone: background by majority, objects as connected pieces, a
piece's color by the line of mixtures with the background that its pixels lie on (thin strokes
rarely reach their full color), its shape and style by overlap with every shape, filled and not.
"""

from functools import lru_cache
from itertools import permutations

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageFilter
from scipy import ndimage

from dalle_mini_impl.data.synthetic.panels import (
    HEIGHT,
    SIZE,
    Change,
    Panel,
    PanelObject,
    Style,
    apply_change,
)
from dalle_mini_impl.data.synthetic.rendering import outline_mask, shape_mask
from dalle_mini_impl.data.synthetic.scenes import CANVAS, COLORS, SHAPES, SIZES
from dalle_mini_impl.evaluation.judges.scenes import (
    BLURS,
    CONTRAST,
    EIGHT,
    SPECK,
    UNKNOWN,
    find_background,
)

ASPECTS: tuple[str, ...] = ("count", "shape", "color", "style", "place", "background")
"""What the lower half must have right."""

STYLES: tuple[Style, ...] = ("filled", "outline")

RESEMBLANCE: dict[Style, float] = {"filled": 0.75, "outline": 0.55}
"""Least overlap of soft masks; a stroke loses more of it to the same small fault."""

TOLERANCE = 3
"""Pixels of the canvas that a place may be off: less than half a step of the collection's."""

FOREIGN: dict[Style, float] = {"filled": 0.2, "outline": 0.4}
"""Share of a piece's pixels in other colors above which it is no object of one color."""

SEAM = 3
"""Rows beside the other half into which a blurred image carries its colors."""

SIDE = SIZES[SIZE]
MARGIN = 2
"""Pixels around an object's box in which its blurred edge is compared as well."""

SLACK = 1
"""Pixels around the estimated place in which the best fit is sought."""


def find_panels(image: UInt8[np.ndarray, "h w 3"]) -> tuple[Panel, Panel]:
    """The upper and the lower half of a square image of any size, each as a panel.

    Places are those of the 64-pixel canvas, in the lower half from its own top. Raises ValueError
    for an image that is not square.
    """
    if image.shape[0] != image.shape[1]:
        raise ValueError(f"two panels make a square, this image has {image.shape[:2]}: crop it")
    if image.shape[0] != CANVAS:
        image = np.asarray(Image.fromarray(image).resize((CANVAS, CANVAS), Image.Resampling.BOX))
    halves = image[:HEIGHT].astype(np.float32), image[HEIGHT:].astype(np.float32)
    (upper, above), (lower, below) = map(find_background, halves)
    return (
        Panel(_figures(halves[0] - upper, upper, lower - upper, slice(-SEAM, None)), above),
        Panel(_figures(halves[1] - lower, lower, upper - lower, slice(0, SEAM)), below),
    )


def _figures(
    offsets: Float[np.ndarray, "h w 3"],
    ground: Float[np.ndarray, "3"],
    other: Float[np.ndarray, "3"],
    seam: slice,
) -> tuple[PanelObject, ...]:
    """The objects of one half.

    offsets: its pixels less its background, `ground`. other: the other half's background, so
    measured. seam: the rows beside the other half, where a blurred image mixes the two.
    """
    share = np.clip(offsets @ (other / max(float(other @ other), 1.0)), 0, 1)
    mixed = ((offsets - share[..., None] * other) ** 2).sum(-1) < 40.0**2
    foreground = (offsets**2).sum(-1) > CONTRAST**2
    foreground[seam] &= ~mixed[seam]
    piece_of, _ = ndimage.label(_filled(foreground), EIGHT)
    figures: list[PanelObject] = []
    for at, (rows, columns) in enumerate(ndimage.find_objects(piece_of), start=1):
        piece = piece_of == at
        # What is so flat is a fault of the seam, or the edge of an object in the other half.
        if piece[rows, columns].sum() >= SPECK and rows.stop - rows.start > SEAM:
            figures.append(_figure(offsets, piece, ground))
    return tuple(figures)


def judge_change(change: Change, upper: Panel, lower: Panel) -> dict[str, bool]:
    """Which ASPECTS of the lower half are as the change of the upper half asks.

    Aspects of objects are compared under the assignment that gets most of them right; with
    objects too few or too many, those that are missing are wrong in all aspects.
    """
    asked = apply_change(change, upper)
    slots: list[PanelObject | None] = [*lower.objects[:6]]
    slots += [None] * (len(asked.objects) - len(slots))
    best = max(
        (_compared(asked, chosen) for chosen in permutations(slots, len(asked.objects))),
        key=lambda row: sum(map(sum, row)),
    )
    shape, color, style, place = (all(column) for column in zip(*best, strict=True))
    return {
        "count": len(lower.objects) == len(asked.objects),
        "shape": shape,
        "color": color,
        "style": style,
        "place": place,
        "background": lower.background == asked.background,
    }


def _compared(asked: Panel, chosen: tuple[PanelObject | None, ...]) -> list[tuple[bool, ...]]:
    """Shape, color, style and place of each object, right or wrong."""
    return [
        (False,) * 4
        if item is None
        else (
            item.shape == own.shape != UNKNOWN,
            item.color == own.color,
            item.style == own.style,
            max(abs(item.x - own.x), abs(item.y - own.y)) <= TOLERANCE,
        )
        for own, item in zip(asked.objects, chosen, strict=True)
    ]


def _filled(foreground: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Without holes, so that an outline is one piece with what it encloses.

    A stroke that a small gap interrupts encloses its hollow as well.
    """
    closed = ndimage.binary_closing(np.pad(foreground, 2), EIGHT)[2:-2, 2:-2]
    return ndimage.binary_fill_holes(foreground | closed)


def _figure(
    offsets: Float[np.ndarray, "h w 3"],
    piece: Bool[np.ndarray, "h w"],
    ground: Float[np.ndarray, "3"],
) -> PanelObject:
    """The object that a piece of the half shows; its shape may be UNKNOWN."""
    near = ndimage.binary_dilation(piece, EIGHT, iterations=2)
    values = offsets * near[..., None]
    color, cover, foreign = _color(values, ground)
    # Noise on the plain background must not add to the cover, nor noise inside take from it.
    cover = near * np.clip((cover - 0.15) / 0.7, 0, 1)
    y, x = ndimage.center_of_mass(piece)
    best: tuple[float, str, Style, int, int] = (0.0, UNKNOWN, "filled", 0, 0)
    for shape in SHAPES:
        center_x, center_y = _middle(shape)
        place = round(x + 0.5 - center_x), round(y + 0.5 - center_y)
        found, own, at_x, at_y = _overlap(cover, shape, *place)
        if found > best[0]:
            best = (found, shape, own, at_x, at_y)
    overlap, shape, style, left, top = best
    if overlap < RESEMBLANCE[style] or foreign > FOREIGN[style]:
        shape = UNKNOWN
    return PanelObject(shape, color, SIZE, left, top, style)


def _color(
    values: Float[np.ndarray, "h w 3"], ground: Float[np.ndarray, "3"]
) -> tuple[str, Float[np.ndarray, "h w"], float]:
    """The color whose mixtures with the background fit best, its cover, and the share of others.

    values: pixels less the background, zero outside the piece. Pixels far from the mixtures of
    the color found are of another one and covered by nothing.
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


def _overlap(
    cover: Float[np.ndarray, "h w"], shape: str, left: int, top: int
) -> tuple[float, Style, int, int]:
    """The best overlap (intersection over union) near a place, and its style, left and top."""
    covers, sums = _templates(shape)
    y, x = top + SIDE, left + SIDE
    # From SLACK before the place to SLACK behind it, each window with MARGIN around the box.
    reach = SIDE + 2 * (SLACK + MARGIN)
    room = np.pad(cover, SIDE + SLACK + MARGIN)[y : y + reach, x : x + reach]
    windows = sliding_window_view(room, covers.shape[2:])
    common = np.minimum(covers[:, :, None, None], windows).sum((-2, -1))
    overlaps = common / (float(cover.sum()) + sums[..., None, None] - common)
    style, _, dy, dx = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
    return (
        float(overlaps.max()),
        STYLES[style],
        left + int(dx) - SLACK,
        top + int(dy) - SLACK,
    )


@lru_cache(maxsize=16)
def _templates(
    shape: str,
) -> tuple[Float[np.ndarray, "styles blurs h w"], Float[np.ndarray, "styles blurs"]]:
    """Soft masks of a shape by style and blur, with MARGIN pixels around it; their areas."""
    covers = []
    for cover in (shape_mask(shape, SIDE, SIDE), outline_mask(shape, SIDE)):
        plain = Image.new("L", (SIDE + 2 * MARGIN, SIDE + 2 * MARGIN), 0)
        plain.paste(cover, (MARGIN, MARGIN))
        covers.append([np.asarray(plain.filter(ImageFilter.GaussianBlur(r))) for r in BLURS])
    soft = np.clip((np.array(covers, dtype=np.float32) / 255 - 0.15) / 0.7, 0, 1)
    return soft, soft.sum((2, 3))


@lru_cache(maxsize=16)
def _middle(shape: str) -> tuple[float, float]:
    """The centroid's x and y in the shape's box, holes filled, in pixels."""
    solid = ndimage.binary_fill_holes(np.asarray(shape_mask(shape, SIDE, SIDE)) >= 128)
    y, x = ndimage.center_of_mass(solid)
    return x + 0.5, y + 0.5

"""Detects the scene that an image shows, from its pixels alone and without a model.

`verify_claims` (data/synthetic/claims.py) decides which claims of a caption hold of the scene.
The background is the most frequent one, objects are connected pieces of one color, and a piece has
the canonical shape of its area that it overlaps with most.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageFilter
from scipy import ndimage

from dalle_mini_impl.data.synthetic.rendering import shape_mask
from dalle_mini_impl.data.synthetic.scenes import (
    BACKGROUNDS,
    CANVAS,
    COLORS,
    SHAPES,
    Object,
    Scene,
)

UNKNOWN = "unknown"
"""Shape of a piece that resembles none: it counts as an object that no caption asks for."""

CONTRAST = 60.0
"""RGB distance from the background above which a pixel may belong to an object."""

SPECK = 26.0
"""Pixels below which a piece is noise; the smallest objects cover about 90."""

RESEMBLANCE = 0.75
"""Least overlap (intersection over union of soft masks) with a canonical shape."""

BLURS = (0.0, 0.8, 1.5)
"""Radii in pixels that canonical shapes are blurred by before the comparison."""

MARGIN = 3
"""Pixels around an object's box in which its blurred edge is compared as well."""

EIGHT = np.ones((3, 3), dtype=bool)
"""Pixels that touch at a corner are connected as well."""


def find_scene(image: UInt8[np.ndarray, "h w 3"]) -> Scene:
    """The scene in a square image of any size; positions are those of the 64-pixel canvas.

    Raises ValueError for an image that is not square.
    """
    pixels = on_canvas(image)
    ground, name = find_background(pixels)
    offsets = np.pad(pixels - ground, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)))
    regions, _ = ndimage.label((offsets**2).sum(-1) > CONTRAST**2)
    objects: list[Object] = []
    for at, box in enumerate(ndimage.find_objects(regions), start=1):
        region = regions[box] == at
        if region.sum() < SPECK:
            continue
        y, x = (part.start for part in box)
        for color, value, part in _colors(offsets[box], region, ground):
            cover = offsets[box] @ (value / (value @ value))
            pieces, _ = ndimage.label(part & (cover > 0.5), EIGHT)
            own = offsets.copy()
            own[box][region & ~part] = 0
            for number, inner in enumerate(ndimage.find_objects(pieces), start=1):
                piece = pieces[inner] == number
                if piece.sum() >= SPECK:
                    corner = (x + inner[1].start, y + inner[0].start)
                    objects.append(_object(own, value, piece, color, corner))
    return Scene(tuple(objects), name)


def on_canvas(image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "64 64 3"]:
    """A square image at the canvas's size; ValueError for any other image."""
    if image.shape[0] != image.shape[1]:
        raise ValueError(f"the detector needs a square, this image has {image.shape[:2]}: crop it")
    if image.shape[0] != CANVAS:
        image = np.asarray(Image.fromarray(image).resize((CANVAS, CANVAS), Image.Resampling.BOX))
    return image.astype(np.float32)


def find_background(pixels: Float[np.ndarray, "h w 3"]) -> tuple[Float[np.ndarray, "3"], str]:
    """The value and name of the background that is nearest to most pixels."""
    palette = np.array([*BACKGROUNDS.values(), *COLORS.values()], dtype=np.float32)
    flat = pixels.reshape(-1, 3)
    nearest = (((palette**2).sum(-1)) - 2 * flat @ palette.T).argmin(-1)
    counts = np.bincount(nearest, minlength=len(palette))[: len(BACKGROUNDS)]
    best = int(counts.argmax())
    if counts[best] == 0:
        return palette[best], tuple(BACKGROUNDS)[best]
    return np.median(flat[nearest == best], axis=0), tuple(BACKGROUNDS)[best]


def _colors(
    offsets: Float[np.ndarray, "h w 3"],
    region: Bool[np.ndarray, "h w"],
    ground: Float[np.ndarray, "3"],
) -> list[tuple[str, Float[np.ndarray, "3"], Bool[np.ndarray, "h w"]]]:
    """The colors in a region: name, value minus the background, and pixels of each.

    A pixel on an edge mixes background and object and may look like a third color. So only pixels
    far from the mixtures of the two count as another object that touches this one.
    """
    inside = ndimage.binary_erosion(region)
    sample = inside if inside.sum() >= 8 else region
    names = tuple(COLORS)
    palette = np.array([COLORS[name] for name in names], dtype=np.float32) - ground
    nearest = ((palette**2).sum(-1) - 2 * offsets @ palette.T).argmin(-1)
    found: list[tuple[str, Float[np.ndarray, "3"]]] = []
    left = sample
    while left.sum() >= (SPECK if found else 1):
        best = int(np.bincount(nearest[left]).argmax())
        if names[best] in [name for name, _ in found]:
            break
        value = np.median(offsets[left & (nearest == best)], axis=0)
        # A blurred thin shape reaches its full color nowhere, but its cover is measured by it.
        value = value * np.clip(palette[best] @ value / (value @ value), 1.0, 1.3)
        cover = np.clip(offsets @ (value / (value @ value)), 0, 1)
        away = ((offsets - cover[..., None] * value) ** 2).sum(-1) > 50.0**2
        found.append((names[best], value))
        left = ndimage.binary_opening(left & away)
    if len(found) == 1:
        return [(*found[0], region)]
    values = np.stack([value for _, value in found])
    owner = ((offsets[:, :, None] - values) ** 2).sum(-1).argmin(-1)
    return [(name, value, region & (owner == i)) for i, (name, value) in enumerate(found)]


def _object(
    offsets: Float[np.ndarray, "h w 3"],
    value: Float[np.ndarray, "3"],
    piece: Bool[np.ndarray, "a b"],
    color: str,
    corner: tuple[int, int],
) -> Object:
    """The object of this color whose surely covered pixels are `piece`, found at `corner`."""
    x, y = corner[0] - 2, corner[1] - 2
    near = ndimage.binary_dilation(np.pad(piece, 2), EIGHT, iterations=2)
    near = near[max(0, -y) :, max(0, -x) :]
    x, y = max(0, x), max(0, y)
    window = offsets[y : y + near.shape[0], x : x + near.shape[1]]
    near = near[: window.shape[0], : window.shape[1]]
    # Noise on the background must not add to the area, nor noise inside the object reduce it.
    cover = near * np.clip((window @ (value / (value @ value)) - 0.15) / 0.7, 0, 1)
    area = float(cover.sum())
    middle_x = float(cover.sum(0) @ (np.arange(cover.shape[1]) + 0.5)) / area
    middle_y = float(cover.sum(1) @ (np.arange(cover.shape[0]) + 0.5)) / area
    shape, side, left, top, overlap = max(
        (_compare(cover, area, middle_x, middle_y, shape) for shape in SHAPES),
        key=lambda found: found[-1],
    )
    if overlap < RESEMBLANCE:
        shape = UNKNOWN
    return Object(shape, color, side, x + left - MARGIN, y + top - MARGIN)


def _compare(
    cover: Float[np.ndarray, "h w"], area: float, x: float, y: float, shape: str
) -> tuple[str, int, int, int, float]:
    """The shape, fitted to the cover's area and centroid: name, side, left, top and overlap.

    Unlike a bounding box, area and centroid hardly change where blur removes thin tips.
    """
    fill, center_x, center_y = _moments(shape)
    side = max(4, round((area / fill) ** 0.5))
    left, top = round(x - center_x * side), round(y - center_y * side)
    templates, sums = _templates(shape, side)
    # Coordinates of the template's margin box within the cover; everything outside is empty.
    x0, y0, reach = left - MARGIN, top - MARGIN, side + 2 * MARGIN
    seen = cover[max(0, y0) : max(0, y0 + reach), max(0, x0) : max(0, x0 + reach)]
    row, column = max(0, -y0), max(0, -x0)
    inner = templates[:, row : row + seen.shape[0], column : column + seen.shape[1]]
    common = np.minimum(inner, seen).sum((1, 2))
    overlap = common / (area + sums - common)
    return shape, side, left, top, float(overlap.max())


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
def _templates(
    shape: str, side: int
) -> tuple[Float[np.ndarray, "blurs h w"], Float[np.ndarray, "blurs"]]:
    """Soft masks of a shape by blur, in a box of `side` with MARGIN around it; their areas."""
    plain = Image.new("L", (side + 2 * MARGIN, side + 2 * MARGIN), 0)
    plain.paste(shape_mask(shape, side, side), (MARGIN, MARGIN))
    blurred = [plain.filter(ImageFilter.GaussianBlur(radius)) for radius in BLURS]
    covers = np.stack([np.asarray(image, dtype=np.float32) / 255 for image in blurred])
    covers = np.clip((covers - 0.15) / 0.7, 0, 1)
    return covers, covers.sum((1, 2))

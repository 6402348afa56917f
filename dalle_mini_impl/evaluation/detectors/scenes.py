"""Detects the scene that an image shows, from its pixels alone and without a model.

`verify_claims` (data/synthetic/claims.py) decides which claims of a caption hold of the scene.
The background is the most frequent one, objects are connected pieces of one color, and a piece has
the canonical shape of its area that it overlaps with most.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy import ndimage

from dalle_mini_impl.data.synthetic.scenes import (
    BACKGROUNDS,
    CANVAS,
    COLORS,
    Object,
    Scene,
)
from dalle_mini_impl.evaluation.detectors.fitting import (
    EIGHT,
    MARGIN,
    Cover,
    best_fit,
    ragged_parts,
    refine,
    soften,
)

UNKNOWN = "unknown"
"""Shape of a piece that resembles none: it counts as an object that no caption asks for."""

CONTRAST = 60.0
"""RGB distance from the background above which a pixel may belong to an object."""

SPECK = 26.0
"""Pixels below which a piece is noise; the smallest objects cover about 90."""

FOREIGN = 60.0
"""RGB distance from the mixtures of object and background from which a pixel is of neither."""

RESEMBLANCE = 0.75
"""Least overlap (intersection over union of soft masks) with a canonical shape."""

CLEAN = 0.9
"""Least overlap with a canonical shape by the strict grade."""


@dataclass(frozen=True)
class FoundObject(Object):
    """An object of an image, and its overlap with the canonical shape that fits it best."""

    overlap: float


@dataclass(frozen=True)
class FoundScene(Scene):
    """The scene that an image shows."""

    objects: tuple[FoundObject, ...]
    specks: int
    """Visible pieces that are no object and no part of a canonical shape."""


def is_clean(scene: FoundScene) -> bool:
    """The strict grade, besides true claims: canonical shapes only, and nothing else."""
    return not scene.specks and all(item.overlap >= CLEAN for item in scene.objects)


def find_scene(image: UInt8[np.ndarray, "h w 3"]) -> FoundScene:
    """The scene in a square image of any size; positions are those of the 64-pixel canvas.

    Raises ValueError for an image that is not square.
    """
    pixels = on_canvas(image)
    ground, name = find_background(pixels)
    offsets = np.pad(pixels - ground, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)))
    foreground = (offsets**2).sum(-1) > CONTRAST**2
    regions, _ = ndimage.label(foreground)
    objects: list[FoundObject] = []
    specks = count_specks(foreground)
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
                    item, wrong = _object(own, value, piece, color, corner)
                    objects.append(item)
                    specks += wrong
    return FoundScene(tuple(objects), name, specks)


def count_specks(foreground: Bool[np.ndarray, "h w"]) -> int:
    """Pieces of the foreground that are too small for an object."""
    pieces, _ = ndimage.label(foreground, EIGHT)
    return int((np.bincount(pieces[foreground]) < SPECK)[1:].sum())


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
    covers = np.clip(offsets @ (palette.T / (palette**2).sum(-1)), 0, 1)
    nearest = ((offsets[:, :, None] - covers[..., None] * palette) ** 2).sum(-1).argmin(-1)
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
) -> tuple[FoundObject, int]:
    """The object of this color whose surely covered pixels are `piece`, and its ragged parts.

    corner: x and y of the piece in `offsets`.
    """
    x, y = corner[0] - 2, corner[1] - 2
    near = ndimage.binary_dilation(np.pad(piece, 2), EIGHT, iterations=2)
    near = near[max(0, -y) :, max(0, -x) :]
    x, y = max(0, x), max(0, y)
    window = offsets[y : y + near.shape[0], x : x + near.shape[1]]
    near = near[: window.shape[0], : window.shape[1]]
    share = np.clip(window @ (value / (value @ value)), 0, 1)
    cover = near * soften(share)
    fit = best_fit(Cover(cover))
    shape = fit.shape if fit.overlap >= RESEMBLANCE else UNKNOWN
    # To the strict grade, pixels of another color are holes.
    away = ((window - share[..., None] * value) ** 2).sum(-1) > FOREIGN**2
    pure = Cover(np.where(away, 0, cover))
    fit = refine(pure, fit, halves=True)
    left, top = x + fit.left - MARGIN, y + fit.top - MARGIN
    return FoundObject(shape, color, fit.side, left, top, fit.overlap), ragged_parts(pure, fit)

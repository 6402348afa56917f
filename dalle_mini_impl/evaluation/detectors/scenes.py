"""Detects the scene that an image shows, from its pixels alone and without a model.

`verify_claims` (data/synthetic/claims.py) decides which claims of a caption hold of the scene.
The background is the most frequent one, objects are connected pieces of one color, and a piece has
the canonical shape of its area that it overlaps with most.
"""

from collections.abc import Iterator
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
    """Visible pieces that are no object, and places where an object is not like its shape."""


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
    candidates = list(_candidates(offsets, foreground, ground))
    sure = np.zeros_like(foreground)
    for item in candidates:
        sure |= item.piece
    judged = [_object(_without_others(offsets, foreground, sure, own), own) for own in candidates]
    # Touching at a corner joins pieces here, so that noise at an edge is no speck.
    clusters, count = ndimage.label(foreground, EIGHT)
    specks = count - len(np.unique(clusters[sure])) + sum(ragged for _, ragged in judged)
    return FoundScene(tuple(found for found, _ in judged), name, specks)


@dataclass(frozen=True)
class _Candidate:
    """A connected piece of one color, large enough for an object."""

    color: str
    value: Float[np.ndarray, "3"]
    """Its color minus the background."""
    part: Bool[np.ndarray, "h w"]
    """The pixels of this color in its region, also those that it covers in part."""
    piece: Bool[np.ndarray, "h w"]
    """The pixels that it surely covers."""


def _candidates(
    offsets: Float[np.ndarray, "h w 3"],
    foreground: Bool[np.ndarray, "h w"],
    ground: Float[np.ndarray, "3"],
) -> Iterator[_Candidate]:
    """The pieces of the foreground that may be objects."""
    regions, _ = ndimage.label(foreground)
    for at, box in enumerate(ndimage.find_objects(regions), start=1):
        region = regions[box] == at
        if region.sum() < SPECK:
            continue
        for color, value, own in _colors(offsets[box], region, ground):
            part = np.zeros_like(foreground)
            part[box] = own
            pieces, count = ndimage.label(part & (offsets @ (value / (value @ value)) > 0.5), EIGHT)
            for number in range(1, count + 1):
                piece = pieces == number
                if piece.sum() >= SPECK:
                    yield _Candidate(color, value, part, piece)


def _without_others(
    offsets: Float[np.ndarray, "h w 3"],
    foreground: Bool[np.ndarray, "h w"],
    sure: Bool[np.ndarray, "h w"],
    item: _Candidate,
) -> Float[np.ndarray, "h w 3"]:
    """The offsets without the other candidates, but with what belongs to none: dirt on this one.

    sure: the surely covered pixels of all candidates.
    """
    clusters, count = ndimage.label(foreground & ~item.part, EIGHT)
    of_others = np.zeros(count + 1, dtype=bool)
    of_others[clusters[sure & ~item.part]] = True
    return np.where(of_others[clusters][..., None], 0, offsets)


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


def _object(offsets: Float[np.ndarray, "h w 3"], item: _Candidate) -> tuple[FoundObject, int]:
    """The object that a candidate shows, and its ragged parts."""
    value = item.value
    box = ndimage.find_objects(item.piece.astype(int))[0]
    y, x = (max(0, side.start - 2) for side in box)
    bottom, right = (side.stop + 2 for side in box)
    window = offsets[y:bottom, x:right]
    near = ndimage.binary_dilation(item.piece[y:bottom, x:right], EIGHT, iterations=2)
    share = np.clip(window @ (value / (value @ value)), 0, 1)
    cover = near * soften(share)
    fit = best_fit(Cover(cover))
    shape = fit.shape if fit.overlap >= RESEMBLANCE else UNKNOWN
    # To the strict grade, pixels of another color are holes.
    pure = Cover(np.where(_foreign(window, value), 0, cover))
    fit = refine(pure, fit, halves=True)
    left, top = x + fit.left - MARGIN, y + fit.top - MARGIN
    wrong = _visibly_wrong(offsets, value, fit.mask, (left, top))
    found = FoundObject(shape, item.color, fit.side, left, top, fit.overlap)
    return found, ragged_parts(pure, fit, wrong)


def _foreign(
    offsets: Float[np.ndarray, "h w 3"], value: Float[np.ndarray, "3"]
) -> Bool[np.ndarray, "h w"]:
    """Pixels that no mixture of object and background looks like."""
    share = np.clip(offsets @ (value / (value @ value)), 0, 1)
    return ((offsets - share[..., None] * value) ** 2).sum(-1) > FOREIGN**2


def _visibly_wrong(
    offsets: Float[np.ndarray, "h w 3"],
    value: Float[np.ndarray, "3"],
    mask: Float[np.ndarray, "n n"],
    corner: tuple[int, int],
) -> Bool[np.ndarray, "n n"]:
    """Pixels that are far from the colors that an object with this mask may have there.

    Only beside an edge may a pixel mix object and background. corner: x and y of the mask in
    `offsets`, whose border is background.
    """
    x, y = (
        np.arange(start, start + len(mask)).clip(0, reach - 1)
        for start, reach in zip(corner, (offsets.shape[1], offsets.shape[0]), strict=True)
    )
    seen = offsets[np.ix_(y, x)]
    outside = ndimage.maximum_filter(mask, 3) == 0
    inside = ndimage.minimum_filter(mask, 3) == 1
    dirt = outside & ((seen**2).sum(-1) > CONTRAST**2)
    hole = inside & (((seen - value) ** 2).sum(-1) > FOREIGN**2)
    return _foreign(seen, value) | dirt | hole

"""Renders scenes and images of two panels with Pillow, anti-aliased, at any size."""

import math
from collections.abc import Iterator
from functools import lru_cache

from PIL import Image, ImageChops, ImageDraw

from dalle_mini_impl.data.synthetic.panels import PanelObject, Panels
from dalle_mini_impl.data.synthetic.scenes import BACKGROUNDS, CANVAS, COLORS, SHAPES, Scene

SUPERSAMPLING = 8
"""Masks are drawn this many times larger and scaled down, for smooth edges."""

STROKE = 1 / 12
"""Width of an outline, inside the shape's edge, as a share of the box's side."""


def corners(shape: str) -> list[tuple[float, float]]:
    """Corners of a polygonal shape, scaled to fill the unit box."""
    if shape == "square":
        return [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
    if shape == "triangle":
        return [(0.5, 0.0), (1.0, 1.0), (0.0, 1.0)]
    if shape == "diamond":
        return [(0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)]
    if shape == "cross":
        a, b, end = 0.32, 0.68, 1.0
        return [
            (a, 0.0), (b, 0.0), (b, a), (end, a), (end, b), (b, b),
            (b, end), (a, end), (a, b), (0.0, b), (0.0, a), (a, a),
        ]  # fmt: skip
    if shape == "star":
        turns = [(math.pi * i / 5, 1.0 if i % 2 == 0 else 0.42) for i in range(10)]
        points = [(radius * math.sin(t), -radius * math.cos(t)) for t, radius in turns]
    elif shape == "heart":
        turn = [2 * math.pi * i / 96 for i in range(96)]
        points = [
            (
                16 * math.sin(t) ** 3,
                5 * math.cos(2 * t) + 2 * math.cos(3 * t) + math.cos(4 * t) - 13 * math.cos(t),
            )
            for t in turn
        ]
    else:
        raise ValueError(f"no outline for the shape {shape!r}; known shapes: {', '.join(SHAPES)}")
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    top, bottom = min(y for _, y in points), max(y for _, y in points)
    return [((x - left) / (right - left), (y - top) / (bottom - top)) for x, y in points]


@lru_cache(maxsize=256)
def shape_mask(shape: str, width: int, height: int) -> Image.Image:
    """Coverage of a box of `width` × `height` pixels by a shape that fills it (mode "L").

    The image is cached and shared: do not draw on it.
    """
    w, h = width * SUPERSAMPLING, height * SUPERSAMPLING
    large = Image.new("L", (w, h), 0)
    pen = ImageDraw.Draw(large)
    if shape in ("circle", "ring"):
        pen.ellipse((0, 0, w - 1, h - 1), fill=255)
        if shape == "ring":
            pen.ellipse((w * 0.25, h * 0.25, w * 0.75 - 1, h * 0.75 - 1), fill=0)
    else:
        pen.polygon([(x * (w - 1), y * (h - 1)) for x, y in corners(shape)], fill=255)
    return large.resize((width, height), Image.Resampling.BOX)


def render_scene(scene: Scene, image_size: int = CANVAS) -> Image.Image:
    """The scene as an RGB image of `image_size` × `image_size` pixels."""
    return _render(scene, image_size, image_size)


def render_panels(panels: Panels, image_size: int = CANVAS) -> Image.Image:
    """The image, RGB, `image_size` × `image_size` pixels (an even number)."""
    image = Image.new("RGB", (image_size, image_size))
    for top, panel in ((0, panels.upper), (image_size // 2, panels.lower)):
        image.paste(_render(panel, image_size, image_size // 2), (0, top))
    return image


def _render(scene: Scene, width: int, height: int) -> Image.Image:
    """The scene or panel, whose canvas is as wide as the image."""
    scale = width / CANVAS
    image = Image.new("RGB", (width, height), BACKGROUNDS[scene.background])
    for item in scene.objects:
        side = max(1, round(item.side * scale))
        outline = isinstance(item, PanelObject) and item.style == "outline"
        cover = outline_mask(item.shape, side) if outline else shape_mask(item.shape, side, side)
        image.paste(COLORS[item.color], (round(item.x * scale), round(item.y * scale)), cover)
    return image


@lru_cache(maxsize=64)
def outline_mask(shape: str, side: int) -> Image.Image:
    """Coverage of a box of `side` pixels by the outline of a shape that fills it (mode "L").

    The image is cached and shared: do not draw on it.
    """
    large = side * SUPERSAMPLING
    width = STROKE * large
    line = Image.new("L", (large, large), 0)
    pen = ImageDraw.Draw(line)
    for edge in _edges(shape, large - 1):
        # Twice as wide, because the half outside the shape is cut away. The first segment is
        # repeated at the end to round the corner where the ends meet.
        pen.line([*edge, *edge[:2]], fill=255, width=round(2 * width), joint="curve")
    inside = shape_mask(shape, large, large).point(lambda value: 255 if value >= 128 else 0)
    return ImageChops.darker(line, inside).resize((side, side), Image.Resampling.BOX)


def _edges(shape: str, reach: int) -> Iterator[list[tuple[float, float]]]:
    """Closed curves that bound a shape in a box of this width."""
    if shape in ("circle", "ring"):
        turns = [2 * math.pi * i / 96 for i in range(96)]
        for radius in (0.5, 0.25) if shape == "ring" else (0.5,):
            yield [
                (reach * (0.5 + radius * math.cos(t)), reach * (0.5 + radius * math.sin(t)))
                for t in turns
            ]
    else:
        yield [(x * reach, y * reach) for x, y in corners(shape)]

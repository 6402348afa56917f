"""Scenes of plain shapes: what they are made of, and how Pillow draws them, anti-aliased.

Places and sides are in pixels of a 64×64 canvas; `render` scales them to any image size.
"""

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from PIL import Image, ImageDraw

CANVAS = 64
"""Side of the canvas that places and sides are given in."""

SHAPES: tuple[str, ...] = (
    "circle",
    "square",
    "triangle",
    "star",
    "ring",
    "heart",
    "cross",
    "diamond",
)

# Saturated and far apart: no two nearer than 100 in RGB, nor any to a background than 120.
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (215, 25, 40),
    "orange": (250, 125, 0),
    "yellow": (255, 225, 20),
    "green": (30, 160, 60),
    "cyan": (0, 200, 215),
    "blue": (30, 80, 235),
    "purple": (120, 40, 180),
    "pink": (255, 80, 170),
}

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "gray": (160, 160, 160),
    "black": (20, 20, 20),
    "beige": (235, 210, 160),
}

SIZES: dict[str, int] = {"small": 16, "large": 24}
"""Side of an object's box: two and three patches of eight pixels."""

RELATIONS: tuple[str, ...] = ("left of", "right of", "above", "below")

INVERSE: dict[str, str] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}

CLEAR = 8
"""Pixels that two centers must lie apart on an axis before a caption may say so."""

SUPERSAMPLING = 8


@dataclass(frozen=True)
class Object:
    """One shape; `x`, `y` is the upper left corner of its box. A judged shape may be "unknown"."""

    shape: str
    color: str
    size: str
    x: int
    y: int

    @property
    def side(self) -> int:
        return SIZES[self.size]

    @property
    def center(self) -> tuple[float, float]:
        return self.x + self.side / 2, self.y + self.side / 2


@dataclass(frozen=True)
class Scene:
    """Objects on a plain background, all by name."""

    objects: tuple[Object, ...]
    background: str

    def to_dict(self) -> dict[str, Any]:
        return {"objects": [asdict(item) for item in self.objects], "background": self.background}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Scene":
        return cls(tuple(Object(**item) for item in values["objects"]), values["background"])


def relation_between(first: Object, second: Object) -> str | None:
    """The relation of `first` to `second` if it is clear: none when they lie on a diagonal."""
    dx = second.center[0] - first.center[0]
    dy = second.center[1] - first.center[1]
    if abs(dx) >= CLEAR and abs(dx) > abs(dy):
        return "left of" if dx > 0 else "right of"
    if abs(dy) >= CLEAR and abs(dy) > abs(dx):
        return "above" if dy > 0 else "below"
    return None


def relation_holds(first: Object, relation: str, second: Object, tolerance: float = 2.0) -> bool:
    """Whether `first` stands in `relation` to `second`, forgiving `tolerance` pixels.

    The slack keeps what `relation_between` says true when centers are found from pixels.
    """
    dx = second.center[0] - first.center[0]
    dy = second.center[1] - first.center[1]
    along, across = {
        "left of": (dx, dy),
        "right of": (-dx, dy),
        "above": (dy, dx),
        "below": (-dy, dx),
    }[relation]
    return along >= CLEAR - tolerance and along >= abs(across) - tolerance


def outline(shape: str) -> list[tuple[float, float]]:
    """Corners of a polygonal shape, stretched to fill the unit box."""
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
def mask(shape: str, width: int, height: int) -> Image.Image:
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
        pen.polygon([(x * (w - 1), y * (h - 1)) for x, y in outline(shape)], fill=255)
    return large.resize((width, height), Image.Resampling.BOX)


def render(scene: Scene, image_size: int = CANVAS) -> Image.Image:
    """The scene as an RGB image of `image_size` × `image_size` pixels."""
    scale = image_size / CANVAS
    image = Image.new("RGB", (image_size, image_size), BACKGROUNDS[scene.background])
    for item in scene.objects:
        side = max(1, round(item.side * scale))
        corner = (round(item.x * scale), round(item.y * scale))
        image.paste(COLORS[item.color], corner, mask(item.shape, side, side))
    return image

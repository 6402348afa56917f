"""Scenes of plain shapes: objects, colors, backgrounds and relations.

Positions and sides are in pixels of a 64×64 canvas; `render_scene` scales them to any image size.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

CANVAS = 64
"""Side of the canvas that positions and sides are given in."""

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

# Saturated and far apart in RGB: at least 100 from each other and 120 from any background.
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

SIZES: dict[str, range] = {"small": range(13, 19), "large": range(22, 28)}
"""Sides of an object's box that each size has in the collections."""

INVERSE: dict[str, str] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}

CLEAR = 8
"""Pixels between two centers on an axis from which a caption may name the relation."""


@dataclass(frozen=True)
class Object:
    """One shape; (`x`, `y`) is the upper left corner of its box. A detector may find "unknown"."""

    shape: str
    color: str
    side: int
    x: int
    y: int

    @property
    def size(self) -> str:
        """The size whose sides are nearest."""
        return min(SIZES, key=lambda name: abs(SIZES[name][0] + SIZES[name][-1] - 2 * self.side))

    @property
    def center(self) -> tuple[float, float]:
        return self.x + self.side / 2, self.y + self.side / 2


@dataclass(frozen=True)
class Scene:
    """Objects on a plain background."""

    objects: tuple[Object, ...]
    background: str

    def to_dict(self) -> dict[str, Any]:
        return {"objects": [asdict(item) for item in self.objects], "background": self.background}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Scene":
        return cls(tuple(Object(**item) for item in values["objects"]), values["background"])


def sides_on(lattice: int, size: str) -> Sequence[int]:
    """The sides of a size: those that are multiples of `lattice`, or all of them if none is."""
    return [side for side in SIZES[size] if side % lattice == 0] or SIZES[size]


def relation_between(first: Object, second: Object) -> str | None:
    """The relation of `first` to `second`; None where it is unclear, as on a diagonal."""
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

"""Images of two panels: a scene on the upper half, and below it the same scene changed.

After the image-to-image prompts of Ramesh et al. 2021 (arXiv 2102.12092), "the exact same cat on
the top as a sketch at the bottom". Each half shows large objects; what the shapes collection
holds out of training is held out of both halves.
"""

import random
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from pydantic import Field

from dalle_mini_impl.data.splits import Split
from dalle_mini_impl.data.synthetic.scenes import (
    BACKGROUNDS,
    CANVAS,
    COLORS,
    SHAPES,
    SIZES,
    Object,
    Scene,
    sides_on,
)
from dalle_mini_impl.data.synthetic.shapes import GAP, SyntheticConfig, is_held_out

HEIGHT = CANVAS // 2
"""Height of a panel in pixels of the canvas; `y` counts from the top of each panel."""

SIZE = "large"
"""Size of all objects: the outline of a small one would have no visible hollow."""

SIDES = SIZES[SIZE]
"""Sides of their boxes; `PanelsConfig.lattice` leaves only some of them."""

TOLERANCE = 3
"""Pixels of the canvas that a judge forgives in a position or a side."""

Style = Literal["filled", "outline"]
ChangeKind = Literal["same", "color", "mirrored", "outline", "background"]

CHANGE_KINDS: tuple[ChangeKind, ...] = get_args(ChangeKind)
"""How the lower panel can differ from the upper one."""


@dataclass(frozen=True)
class PanelObject(Object):
    """An object of a panel: filled, or only its outline."""

    style: Style = "filled"


@dataclass(frozen=True)
class Panel(Scene):
    """One half of an image."""

    objects: tuple[PanelObject, ...]
    background: str

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Panel":
        return cls(tuple(PanelObject(**item) for item in values["objects"]), values["background"])


@dataclass(frozen=True)
class Change:
    """How the lower panel differs from the upper one.

    `color` is the new color of all objects, for the kind "color" only. `background` is the new
    background, for the kind "background" or in addition to any other.
    """

    kind: ChangeKind
    color: str | None = None
    background: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Panels:
    """A whole image."""

    upper: Panel
    lower: Panel

    def to_dict(self) -> dict[str, Any]:
        return {"upper": self.upper.to_dict(), "lower": self.lower.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Panels":
        return cls(Panel.from_dict(values["upper"]), Panel.from_dict(values["lower"]))


class PanelsConfig(SyntheticConfig):
    """The images of two panels: how many there are and what they show."""

    two_objects: float = Field(0.5, ge=0, le=1)
    """Share of the images with two objects in each half; the others have one."""
    new_background: float = Field(0.25, ge=0, le=1)
    """Share of the other changes that also change the background."""
    lattice: int = Field(1, ge=1, le=16)
    """Boxes start at multiples of this many pixels (of 64); 1 = anywhere, with sides of 22 to 27
    pixels. Of these sides only multiples of the lattice occur, if there are any: with 8 every
    side is 24."""
    captions_per_image: int = Field(4, ge=1, le=1000)
    """Captions of each image."""


def apply_change(change: Change, upper: Panel) -> Panel:
    """The lower panel that results from the change."""
    objects = upper.objects
    if change.kind == "color" and change.color is not None:
        objects = tuple(replace(item, color=change.color) for item in objects)
    elif change.kind == "mirrored":
        # Every shape is its own mirror image, so only the positions change.
        objects = tuple(replace(item, x=CANVAS - item.x - item.side) for item in objects)
    elif change.kind == "outline":
        objects = tuple(replace(item, style="outline") for item in objects)
    return Panel(objects, change.background or upper.background)


def panels_match(first: Panel, second: Panel) -> bool:
    """Whether two panels show the same, whatever the order of their objects."""
    same = sorted(map(repr, first.objects)) == sorted(map(repr, second.objects))
    return same and first.background == second.background


def random_panels(index: int, split: Split, config: PanelsConfig) -> tuple[Panels, Change]:
    """Image `index` of a split and its change: a pure function of the arguments."""
    rng = random.Random(f"panels/{config.seed}/{split}/{index}")
    number = 2 if rng.random() < config.two_objects else 1
    return compose_panels(rng, number, rng.choice(CHANGE_KINDS), split, config)


def compose_panels(
    rng: random.Random, number: int, kind: ChangeKind, split: Split, config: PanelsConfig
) -> tuple[Panels, Change]:
    """A random image of the split, with `number` objects in each half and a change of this kind."""
    while True:
        upper = _random_upper(rng, number, config.lattice)
        change = _random_change(rng, kind, upper, config.new_background)
        if upper is None or change is None:
            continue
        lower = apply_change(change, upper)
        # A nearly symmetric scene looks like its own mirror image.
        if kind == "mirrored" and not _moved(upper, lower):
            continue
        if (is_held_out(upper) or is_held_out(lower)) == (split == "held_out"):
            return Panels(upper, lower), change


def _moved(upper: Panel, lower: Panel) -> bool:
    """Whether any object stands elsewhere in the lower panel, beyond what a judge forgives."""
    pairs = zip(upper.objects, lower.objects, strict=True)
    return any(abs(before.x - after.x) > TOLERANCE for before, after in pairs)


def _random_upper(rng: random.Random, number: int, lattice: int) -> Panel | None:
    """Filled objects side by side; None where they are too close to each other."""
    objects = []
    for _ in range(number):
        shape, color = rng.choice(SHAPES), rng.choice(tuple(COLORS))
        side = rng.choice(sides_on(lattice, SIZE))
        x, y = ((reach - side) // lattice + 1 for reach in (CANVAS, HEIGHT))
        place = rng.randrange(x) * lattice, rng.randrange(y) * lattice
        objects.append(PanelObject(shape, color, side, *place))
    if number == 2:
        first, second = sorted(objects, key=lambda item: item.x)
        near = second.x - first.x < first.side + GAP
        if near or (first.shape, first.color) == (second.shape, second.color):
            return None
    return Panel(tuple(objects), rng.choice(tuple(BACKGROUNDS)))


def _random_change(
    rng: random.Random, kind: ChangeKind, upper: Panel | None, new_background: float
) -> Change | None:
    """A random change of this kind to a color and background that the upper panel lacks."""
    if upper is None:
        return None
    color = background = None
    if kind == "color":
        used = {item.color for item in upper.objects}
        color = rng.choice([name for name in COLORS if name not in used])
    if kind == "background" or rng.random() < new_background:
        background = rng.choice([name for name in BACKGROUNDS if name != upper.background])
    return Change(kind, color, background)

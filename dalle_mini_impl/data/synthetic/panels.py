"""Images of two panels: a scene on the upper half, and below it the same scene changed.

After the image-to-image prompts of Ramesh et al. 2021 (arXiv 2102.12092), "the exact same cat on
the top as a sketch at the bottom". Each half shows `large` objects, on the lattice of the shapes
collection; what that collection holds out of training is held out of both halves.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Literal, get_args

from PIL import Image, ImageChops, ImageDraw
from pydantic import Field

from dalle_mini_impl.config import Config
from dalle_mini_impl.data.synthetic.scenes import (
    BACKGROUNDS,
    CANVAS,
    COLORS,
    SHAPES,
    SIZES,
    SUPERSAMPLING,
    Object,
    Scene,
    mask,
    outline,
)
from dalle_mini_impl.data.synthetic.shapes import GAP, Split, is_held_out

HEIGHT = CANVAS // 2
"""Height of a panel in pixels of the canvas; places in the lower one count from its own top."""

SIZE = "large"
"""Size of all objects: an outline of the small ones would leave no hollow to see."""

STROKE = 2
"""Width of an outline in pixels of the canvas, inside the shape's edge."""

Style = Literal["filled", "outline"]
Kind = Literal["same", "color", "mirrored", "outline", "background"]

CHANGES: tuple[Kind, ...] = get_args(Kind)
"""What the lower panel can be asked to do to the upper one."""


@dataclass(frozen=True)
class Figure(Object):
    """An object of a panel: filled, or only its outline."""

    style: Style = "filled"


@dataclass(frozen=True)
class Panel(Scene):
    """One half of an image."""

    objects: tuple[Figure, ...]
    background: str

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Panel":
        return cls(tuple(Figure(**item) for item in values["objects"]), values["background"])


@dataclass(frozen=True)
class Change:
    """How the lower panel differs: its `kind`, the new color of all objects, a new background.

    `color` belongs to the kind "color"; `background` to the kind "background", or comes on top of
    any other.
    """

    kind: Kind
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


class PanelsConfig(Config):
    """Images of two panels: how many there are and what they show."""

    train_examples: int = Field(20000, ge=1)
    """Images to train on."""
    validation_examples: int = Field(1000, ge=1)
    """Unseen images of compositions that training has seen."""
    held_out_examples: int = Field(1000, ge=1)
    """Images with a composition that training never sees, above or below."""
    seed: int = 0
    """Seed of every split: the same seed gives the same images and captions."""
    two_objects: float = Field(0.5, ge=0, le=1)
    """Share of the images with two objects in each half; the others have one."""
    new_background: float = Field(0.25, ge=0, le=1)
    """Share of the other changes that ask for another background as well."""
    lattice: int = Field(8, ge=1, le=16)
    """Boxes start at multiples of this many pixels (of 64); 1 = anywhere."""
    captions_per_image: int = Field(4, ge=1)
    """Captions written for each image."""


def apply(change: Change, upper: Panel) -> Panel:
    """The lower panel that the change asks for."""
    objects = upper.objects
    if change.kind == "color" and change.color is not None:
        objects = tuple(replace(item, color=change.color) for item in objects)
    elif change.kind == "mirrored":
        # Every shape is its own mirror image, so only the places change.
        objects = tuple(replace(item, x=CANVAS - item.x - item.side) for item in objects)
    elif change.kind == "outline":
        objects = tuple(replace(item, style="outline") for item in objects)
    return Panel(objects, change.background or upper.background)


def alike(first: Panel, second: Panel) -> bool:
    """Whether two panels show the same, in whatever order their objects are listed."""
    same = sorted(map(repr, first.objects)) == sorted(map(repr, second.objects))
    return same and first.background == second.background


def random_panels(index: int, split: Split, config: PanelsConfig) -> tuple[Panels, Change]:
    """Image `index` of a split and its change: a pure function of the arguments."""
    rng = random.Random(f"panels/{config.seed}/{split}/{index}")
    number = 2 if rng.random() < config.two_objects else 1
    return compose(rng, number, rng.choice(CHANGES), split, config)


def compose(
    rng: random.Random, number: int, kind: Kind, split: Split, config: PanelsConfig
) -> tuple[Panels, Change]:
    """An image of `number` objects in each half and a change of this kind, of the split."""
    while True:
        upper = _draw_upper(rng, number, config.lattice)
        change = _draw_change(rng, kind, upper, config.new_background)
        if upper is None or change is None:
            continue
        lower = apply(change, upper)
        # A symmetric scene is its own mirror image: nothing would tell the change from none.
        if kind == "mirrored" and alike(replace(lower, background=upper.background), upper):
            continue
        if (is_held_out(upper) or is_held_out(lower)) == (split == "held_out"):
            return Panels(upper, lower), change


def _draw_upper(rng: random.Random, number: int, lattice: int) -> Panel | None:
    """Filled objects side by side; None where they come too near each other."""
    side = SIZES[SIZE]
    objects = tuple(
        Figure(
            rng.choice(SHAPES),
            rng.choice(tuple(COLORS)),
            SIZE,
            rng.randrange((CANVAS - side) // lattice + 1) * lattice,
            rng.randrange((HEIGHT - side) // lattice + 1) * lattice,
        )
        for _ in range(number)
    )
    if number == 2:
        first, second = objects
        near = abs(first.x - second.x) < side + GAP
        if near or (first.shape, first.color) == (second.shape, second.color):
            return None
    return Panel(objects, rng.choice(tuple(BACKGROUNDS)))


def _draw_change(
    rng: random.Random, kind: Kind, upper: Panel | None, new_background: float
) -> Change | None:
    """A change of this kind that the upper panel shows nothing of yet."""
    if upper is None:
        return None
    color = background = None
    if kind == "color":
        used = {item.color for item in upper.objects}
        color = rng.choice([name for name in COLORS if name not in used])
    if kind == "background" or rng.random() < new_background:
        background = rng.choice([name for name in BACKGROUNDS if name != upper.background])
    return Change(kind, color, background)


def render_panels(panels: Panels, image_size: int = CANVAS) -> Image.Image:
    """The image, RGB, `image_size` × `image_size` pixels (an even number)."""
    image = Image.new("RGB", (image_size, image_size))
    for top, panel in ((0, panels.upper), (image_size // 2, panels.lower)):
        image.paste(_render_half(panel, image_size), (0, top))
    return image


def _render_half(panel: Panel, image_size: int) -> Image.Image:
    scale = image_size / CANVAS
    half = Image.new("RGB", (image_size, image_size // 2), BACKGROUNDS[panel.background])
    for item in panel.objects:
        side = max(1, round(item.side * scale))
        cover = mask(item.shape, side, side) if item.style == "filled" else stroke(item.shape, side)
        half.paste(COLORS[item.color], (round(item.x * scale), round(item.y * scale)), cover)
    return half


@lru_cache(maxsize=64)
def stroke(shape: str, side: int) -> Image.Image:
    """Coverage of a box of `side` pixels by the outline of a shape that fills it (mode "L").

    The image is cached and shared: do not draw on it.
    """
    large = side * SUPERSAMPLING
    width = STROKE * large / SIZES[SIZE]
    line = Image.new("L", (large, large), 0)
    pen = ImageDraw.Draw(line)
    for edge in _edges(shape, large - 1):
        # Twice as wide as asked, because the half outside the shape is cut away; the overlap of
        # last and first segment rounds the corner where they meet.
        pen.line([*edge, *edge[:2]], fill=255, width=round(2 * width), joint="curve")
    inside = mask(shape, large, large).point(lambda value: 255 if value >= 128 else 0)
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
        yield [(x * reach, y * reach) for x, y in outline(shape)]

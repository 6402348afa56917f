"""The shapes collection: random scenes, with a held-out split that tests composition.

About one color–shape pair in eight, and one (shape, relation, shape) in eight of the scenes with
two objects, never appears in "train" or "validation"; every "held_out" scene contains at least one.
"""

import random
from typing import Annotated

from pydantic import Field, model_validator

from dalle_mini_impl.config import Config, Seed
from dalle_mini_impl.data.splits import Split
from dalle_mini_impl.data.synthetic.claims import Claims, phrase_claims, random_claims
from dalle_mini_impl.data.synthetic.scenes import (
    BACKGROUNDS,
    CANVAS,
    COLORS,
    INVERSE,
    SHAPES,
    SIZES,
    Object,
    Scene,
    relation_between,
    sides_on,
)

GAP = 4
"""Pixels kept free between the boxes of two objects."""


Share = Annotated[float, Field(ge=0, le=1)]


class SyntheticConfig(Config):
    """How many examples a synthetic collection has."""

    train_examples: int = Field(20000, ge=1, le=10**8)
    """Training images."""
    validation_examples: int = Field(1000, ge=1, le=10**8)
    """Other images of the compositions that training sees."""
    held_out_examples: int = Field(1000, ge=1, le=10**8)
    """Images with a composition that training never sees."""
    seed: Seed = 0
    """Seed of every split: the same seed gives the same images and captions."""


class ShapesConfig(SyntheticConfig):
    """The synthetic scenes: how many there are and what they show."""

    max_objects: int = Field(3, ge=1, le=3)
    """Most objects in a scene."""
    object_shares: tuple[Share, Share, Share] = (0.4, 0.4, 0.2)
    """Shares of scenes with one, two and three objects; those above max_objects are ignored."""
    identical_shares: tuple[Share, Share] = (0.2, 0.6)
    """Shares of the scenes with two and with three objects whose objects are identical."""
    lattice: int = Field(1, ge=1, le=16)
    """Boxes start at multiples of this many pixels (of 64); 1 = anywhere, with sides of 13 to 18
    (small) or 22 to 27 pixels (large). Of these sides only multiples of the lattice occur, if
    there are any: with 8 every side is 16 or 24."""
    captions_per_scene: int = Field(4, ge=1, le=1000)
    """Captions of each scene."""

    @model_validator(mode="after")
    def _check_shares(self) -> "ShapesConfig":
        used = self.object_shares[: self.max_objects]
        if min(self.object_shares) < 0 or sum(used) <= 0:
            raise ValueError(
                f"object_shares {self.object_shares} must not be negative and need a positive "
                f"share among the first max_objects = {self.max_objects}"
            )
        if not all(0 <= share <= 1 for share in self.identical_shares):
            raise ValueError(f"identical_shares {self.identical_shares} must lie in [0, 1]")
        return self


def pair_held_out(color: str, shape: str) -> bool:
    """Whether this color–shape pair is kept from training: one shape for each color."""
    # Multiplying by 3 permutes the diagonal, so that neighbors in the lists are not paired.
    return (3 * list(COLORS).index(color) + 2) % len(SHAPES) == SHAPES.index(shape)


def relation_held_out(first: str, relation: str, second: str) -> bool:
    """Whether two shapes in this relation are kept from training; the inverse is equivalent."""
    if relation in ("right of", "below"):
        first, relation, second = second, INVERSE[relation], first
    # Training sees the reversed order and the other axis, so only the combination is new.
    offset = {"left of": 3, "above": 6}[relation]
    return (SHAPES.index(second) - SHAPES.index(first)) % len(SHAPES) == offset


def is_held_out(scene: Scene) -> bool:
    """Whether the scene contains a pair or, with two objects, a relation kept from training."""
    if any(pair_held_out(item.color, item.shape) for item in scene.objects):
        return True
    if len(scene.objects) != 2:
        return False
    first, second = scene.objects
    relation = relation_between(first, second)
    return relation is not None and relation_held_out(first.shape, relation, second.shape)


def claims_held_out(claims: Claims) -> bool:
    """Whether the claims themselves name a pair or a relation that is kept from training."""
    for item in claims.objects:
        if item.color and item.shape and pair_held_out(item.color, item.shape):
            return True
    if claims.relation is None:
        return False
    first, second = claims.objects[0].shape, claims.objects[1].shape
    return bool(first and second and relation_held_out(first, claims.relation, second))


def random_scene(index: int, split: Split, config: ShapesConfig) -> Scene:
    """Scene `index` of a split: a pure function of its arguments."""
    rng = random.Random(f"{config.seed}/{split}/{index}")
    shares = config.object_shares[: config.max_objects]
    number = rng.choices(range(1, len(shares) + 1), shares)[0]
    identical = number > 1 and rng.random() < config.identical_shares[number - 2]
    return compose_scene(rng, number, split, config.lattice, identical)


def describe_scene(
    scene: Scene, index: int, split: Split, config: ShapesConfig
) -> list[tuple[str, Claims]]:
    """The scene's `captions_per_scene` captions, each with its claims."""
    rng = random.Random(f"{config.seed}/{split}/{index}/captions")
    claims = [random_claims(scene, rng) for _ in range(config.captions_per_scene)]
    return [(phrase_claims(claim, rng), claim) for claim in claims]


def compose_scene(
    rng: random.Random, number: int, split: Split, lattice: int = 1, identical: bool = False
) -> Scene:
    """A random scene of the split, with `number` objects, all identical or all distinct."""
    while True:
        kinds = _random_kinds(rng, number, identical)
        paired = any(pair_held_out(color, shape) for shape, color, _ in kinds)
        # The pairs decide the split, except that two objects may have a held-out relation.
        if paired != (split == "held_out") and (paired or number != 2):
            continue
        # In nine of ten scenes of two objects, their relation is clear enough to name.
        clear = number == 2 and not identical and rng.random() < 0.9
        objects = _place(rng, kinds, lattice, clear)
        if objects is None:
            continue
        scene = Scene(objects, rng.choice(tuple(BACKGROUNDS)))
        if is_held_out(scene) == (split == "held_out"):
            return scene


def _random_kinds(rng: random.Random, number: int, identical: bool) -> list[tuple[str, str, str]]:
    """Shape, color and size of each object; no two of a distinct set share shape and color."""
    kinds: dict[tuple[str, str], str] = {}
    colors, sizes = tuple(COLORS), tuple(SIZES)
    while len(kinds) < (1 if identical else number):
        kinds[rng.choice(SHAPES), rng.choice(colors)] = rng.choice(sizes)
    distinct = [(shape, color, size) for (shape, color), size in kinds.items()]
    return distinct * number if identical else distinct


def _place(
    rng: random.Random, kinds: list[tuple[str, str, str]], lattice: int, clear: bool
) -> tuple[Object, ...] | None:
    """Objects at random free positions of the lattice; None when 40 attempts find none."""
    # Drawn once, not in each attempt: attempts with smaller objects succeed more often.
    sides = [rng.choice(sides_on(lattice, size)) for _, _, size in kinds]
    for _ in range(40):
        placed: list[Object] = []
        for (shape, color, _), side in zip(kinds, sides, strict=True):
            steps = (CANVAS - side) // lattice + 1
            x, y = rng.randrange(steps) * lattice, rng.randrange(steps) * lattice
            item = Object(shape, color, side, x, y)
            if any(_near(item, other) for other in placed):
                break
            placed.append(item)
        if len(placed) == len(kinds) and not (clear and relation_between(*placed) is None):
            return tuple(placed)
    return None


def _near(first: Object, second: Object) -> bool:
    return (
        first.x < second.x + second.side + GAP
        and second.x < first.x + first.side + GAP
        and first.y < second.y + second.side + GAP
        and second.y < first.y + first.side + GAP
    )

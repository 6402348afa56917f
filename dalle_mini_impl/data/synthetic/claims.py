"""What a caption claims about a scene: random claims, their wording, and their verification."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Any

from dalle_mini_impl.data.synthetic.scenes import Object, Scene, relation_between, relation_holds

CLAIM_KINDS: tuple[str, ...] = ("object", "color", "size", "count", "relation", "background")

# Wordings are chosen uniformly; a repeated entry is more frequent.
SIZE_WORDS = {"small": ("small", "small", "small", "little"), "large": ("large", "large", "big")}
RELATION_WORDS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "above", "over"),
    "below": ("below", "below", "under"),
}
OPENINGS = ("", "", "", "there is ", "a picture of ", "a drawing of ")
GROUNDS = (" on a {} background", " on a {} background", " on {}", " against a {} background")
NUMBERS = ("no", "one", "two", "three", "four", "five", "six")


@dataclass(frozen=True)
class ObjectClaim:
    """`count` objects with these attributes; None leaves an attribute open."""

    shape: str | None = None
    color: str | None = None
    size: str | None = None
    count: int = 1


@dataclass(frozen=True)
class Claims:
    """All objects of an image; `relation` is that of the first to the second."""

    objects: tuple[ObjectClaim, ...]
    relation: str | None = None
    background: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "objects": [asdict(item) for item in self.objects],
            "relation": self.relation,
            "background": self.background,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Claims":
        objects = tuple(ObjectClaim(**item) for item in values["objects"])
        return cls(objects, values.get("relation"), values.get("background"))


def random_claims(scene: Scene, rng: random.Random) -> Claims:
    """True claims: the shape of every object, nearly always its color, sometimes the rest."""
    groups: dict[tuple[str, str], list[Object]] = {}
    for item in rng.sample(scene.objects, len(scene.objects)):
        groups.setdefault((item.shape, item.color), []).append(item)
    number = len(scene.objects)
    shapes = {shape for shape, _ in groups}
    # A color may be left out only where the shape alone identifies every object.
    colored = len(shapes) < len(groups) or rng.random() > 0.04
    sizes = (0.5, 0.45, 0.2)[min(number, 3) - 1]
    # Usually all sizes are named or none, as people do; sometimes only some.
    named = 1.0 if rng.random() < sizes else rng.choice((0.0, 0.0, 0.3))
    objects = []
    for (shape, color), members in groups.items():
        same = len({item.size for item in members}) == 1
        size = members[0].size if same and rng.random() < named else None
        objects.append(ObjectClaim(shape, color if colored else None, size, len(members)))
    relation = None
    if number == 2 and len(groups) == 2 and rng.random() < 0.85:
        first, second = (members[0] for members in groups.values())
        relation = relation_between(first, second)
    ground = (0.5, 0.35, 0.25)[min(number, 3) - 1]
    background = scene.background if rng.random() < ground else None
    return Claims(tuple(objects), relation, background)


def phrase_claims(claims: Claims, rng: random.Random) -> str:
    """A random wording, in lower case, of at most about 20 words."""
    named = [_noun(item, rng) for item in claims.objects]
    opening = rng.choice(OPENINGS)
    if claims.objects[0].count > 1:
        opening = opening.replace(" is ", " are ")
    return opening + _joined(claims, named, rng)


def noun_phrase(claims: Claims, rng: random.Random) -> str:
    """A random wording of the objects and their attributes, for use within a sentence."""
    return _joined(claims, [_noun(item, rng) for item in claims.objects], rng)


def _joined(claims: Claims, named: Sequence[str], rng: random.Random) -> str:
    if claims.relation is not None:
        body = f" {rng.choice(RELATION_WORDS[claims.relation])} ".join(named)
    elif len(named) == 1:
        body = named[0]
    else:
        body = ", ".join(named[:-1]) + " and " + named[-1]
    ground = rng.choice(GROUNDS).format(claims.background) if claims.background else ""
    return body + ground


def _noun(item: ObjectClaim, rng: random.Random) -> str:
    words = [rng.choice(SIZE_WORDS[item.size])] if item.size else []
    words += [item.color] if item.color else []
    noun = item.shape or "shape"
    if item.count > 1:
        plural = noun + ("es" if noun.endswith("s") else "s")
        return " ".join([NUMBERS[item.count], *words, plural])
    words.append(noun)
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


def verify_claims(claims: Claims, scene: Scene) -> dict[str, bool]:
    """Whether each kind of claim is true of the scene; kinds that are not claimed are absent.

    "object": the shapes are present. "color" and "size" belong to their shapes in the best
    assignment of claims to objects. "count": exactly as many objects as claimed. "relation":
    between the objects assigned to the first and second claim, with two pixels of tolerance.
    """
    slots = [item for item in claims.objects for _ in range(item.count)]
    best: tuple[int, ...] = (-1,)
    for chosen in permutations(_candidates(slots, scene.objects), len(slots)):
        best = max(best, _score(slots, claims.relation, chosen))
    shapes, colors, sizes, relation = best
    truth = {
        "object": shapes == len(slots),
        "count": len(scene.objects) == len(slots),
    }
    if any(slot.color for slot in slots):
        truth["color"] = colors == len(slots)
    if any(slot.size for slot in slots):
        truth["size"] = sizes == len(slots)
    if claims.relation is not None:
        truth["relation"] = bool(relation)
    if claims.background is not None:
        truth["background"] = scene.background == claims.background
    return {kind: truth[kind] for kind in CLAIM_KINDS if kind in truth}


def _candidates(slots: Sequence[ObjectClaim], objects: Sequence[Object]) -> list[Object | None]:
    """The objects to assign (at most the six that fit best), padded with None."""

    def fit(item: Object) -> int:
        return max(sum(_score([slot], None, (item,))[:3]) for slot in slots)

    kept: list[Object | None] = list(objects)
    if len(objects) > 6:
        kept = list(sorted(objects, key=fit, reverse=True)[:6])
    return kept + [None] * (len(slots) - len(kept))


def _score(
    slots: Sequence[ObjectClaim], relation: str | None, chosen: Sequence[Object | None]
) -> tuple[int, ...]:
    """Numbers of correct shapes, of their colors, of their sizes, and whether the relation holds.

    Scores are compared in this order. An attribute that is not claimed counts as correct.
    """
    shapes = colors = sizes = 0
    for slot, item in zip(slots, chosen, strict=True):
        if item is None or slot.shape not in (None, item.shape):
            continue
        shapes += 1
        colors += slot.color in (None, item.color)
        sizes += slot.size in (None, item.size)
    related = 0
    if relation is not None and shapes == len(slots):
        first, second = chosen[0], chosen[1]
        related = int(
            first is not None and second is not None and relation_holds(first, relation, second)
        )
    return shapes, colors, sizes, related

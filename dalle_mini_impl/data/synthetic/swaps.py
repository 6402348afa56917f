"""Hard negatives: claims with one attribute replaced, or two objects' attributes exchanged."""

import random
from dataclasses import asdict, replace
from typing import Any

from dalle_mini_impl.data.synthetic.claims import Claims, ObjectClaim
from dalle_mini_impl.data.synthetic.scenes import BACKGROUNDS, COLORS, INVERSE, SHAPES, SIZES

SWAP_KINDS: tuple[str, ...] = (
    "color",
    "shape",
    "size",
    "relation",
    "background",
    "count",
    "exchange",
)


def swap_attribute(claims: Claims, rng: random.Random, kind: str | None = None) -> Claims:
    """A hard negative: the same claims with one attribute replaced, or exchanged by two objects.

    `kind` is one of SWAP_KINDS, or None for any that applies; "exchange" swaps the colors, shapes
    or sizes of two objects. The result never means the same as `claims`.
    Raises ValueError where that kind of swap does not apply.
    """
    kinds = [kind] if kind is not None else rng.sample(SWAP_KINDS, len(SWAP_KINDS))
    # Binding attributes to objects is the hardest to learn: half of the time, try exchanges first.
    if kind is None and rng.random() < 0.5:
        kinds.insert(0, "exchange")
    for name in kinds:
        changed = _changed(claims, name, rng)
        if changed is not None and _meaning(changed) != _meaning(claims):
            return changed
    raise ValueError(f"no swap of kind {kind!r} applies to {claims}")


def _changed(claims: Claims, kind: str, rng: random.Random) -> Claims | None:
    if kind == "relation":
        return replace(claims, relation=INVERSE[claims.relation]) if claims.relation else None
    if kind == "background":
        others = [name for name in BACKGROUNDS if name != claims.background]
        return replace(claims, background=rng.choice(others)) if claims.background else None
    if kind == "exchange":
        return _exchanged(claims, rng)
    at = rng.randrange(len(claims.objects))
    item = claims.objects[at]
    if kind == "count":
        if claims.relation is not None or len(claims.objects) > 1:
            return None
        new = replace(item, count=rng.choice([n for n in (1, 2, 3) if n != item.count]))
    else:
        names = {"color": tuple(COLORS), "shape": SHAPES, "size": tuple(SIZES)}[kind]
        old = getattr(item, kind)
        if old is None:
            return None
        value = rng.choice([name for name in names if name != old])
        new = ObjectClaim(**{**asdict(item), kind: value})
    return replace(claims, objects=(*claims.objects[:at], new, *claims.objects[at + 1 :]))


def _exchanged(claims: Claims, rng: random.Random) -> Claims | None:
    """The claims with one attribute of two objects exchanged; None where nothing would change."""
    if len(claims.objects) < 2:
        return None
    positions = list(range(len(claims.objects)))
    for field in rng.sample(("color", "shape", "size"), 3):
        i, j = rng.sample(positions, 2)
        first, second = claims.objects[i], claims.objects[j]
        # With an attribute open in only one, the exchange may be true: "a small ring and a star".
        if (first.color is None, first.size is None) != (second.color is None, second.size is None):
            continue
        a, b = getattr(first, field), getattr(second, field)
        if a is None or b is None or a == b:
            continue
        objects = list(claims.objects)
        objects[i], objects[j] = replace(first, **{field: b}), replace(second, **{field: a})
        changed = replace(claims, objects=tuple(objects))
        if _meaning(changed) != _meaning(claims):
            return changed
    return None


def _meaning(claims: Claims) -> tuple[Any, ...]:
    """Equal for claims that mean the same: lists have no order, and relations have inverses."""
    objects, relation = list(claims.objects), claims.relation
    if relation in ("right of", "below"):
        objects, relation = objects[::-1], INVERSE[relation]
    elif relation is None:
        objects.sort(key=repr)
    return tuple(objects), relation, claims.background

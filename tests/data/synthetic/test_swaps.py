"""Swapped attributes make claims false."""

import random

import pytest

from dalle_mini_impl.data.synthetic.claims import Claims, ObjectClaim, verify_claims
from dalle_mini_impl.data.synthetic.shapes import (
    ShapesConfig,
    describe_scene,
)
from dalle_mini_impl.data.synthetic.swaps import SWAP_KINDS, swap_attribute
from tests.data.synthetic.generated import random_scenes


def test_swaps_are_untrue_of_the_scene():
    rng = random.Random(0)
    config = ShapesConfig()
    for index, scene in enumerate(random_scenes(count=150)):
        for _, claims in describe_scene(scene, index, "train", config):
            changed = swap_attribute(claims, rng)
            assert changed != claims
            assert not all(verify_claims(changed, scene).values())


@pytest.mark.parametrize("kind", SWAP_KINDS)
def test_each_swap_changes_its_own_attribute(kind):
    pair = Claims(
        (ObjectClaim("star", "red", "small"), ObjectClaim("ring", "blue", "large")),
        "above",
        "white",
    )
    claims = Claims((ObjectClaim("star", "red", "small", 2),)) if kind == "count" else pair
    for seed in range(20):
        changed = swap_attribute(claims, random.Random(seed), kind)
        before, after = claims.objects[0], changed.objects[0]
        if kind == "relation":
            assert changed.relation == "below"
        elif kind == "background":
            assert changed.background not in (None, "white")
        elif kind == "count":
            assert after.count in (1, 3)
        elif kind == "exchange":
            fields = [
                (item.shape, item.color, item.size) for item in (*pair.objects, *changed.objects)
            ]
            mixed = list(zip(*fields, strict=True))
            assert all(set(values[:2]) == set(values[2:]) for values in mixed)
            assert sum(values[:2] != values[2:] for values in mixed) == 1
        else:
            values = [
                (getattr(a, kind), getattr(b, kind))
                for a, b in zip(pair.objects, changed.objects, strict=True)
            ]
            assert sum(a != b for a, b in values) == 1
        assert (before == after) or kind not in ("relation", "background")


def test_a_swap_with_nothing_to_act_on_is_refused():
    with pytest.raises(ValueError, match="relation"):
        swap_attribute(Claims((ObjectClaim("star", "red"),)), random.Random(0), "relation")

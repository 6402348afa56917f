"""Scenes, claims and the compositional split of the shapes collection."""

import itertools
import json
import random
from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from dalle_mini_impl.data.synthetic.claims import (
    Claims,
    ObjectClaim,
    phrase_claims,
    random_claims,
    verify_claims,
)
from dalle_mini_impl.data.synthetic.rendering import render_scene
from dalle_mini_impl.data.synthetic.scenes import (
    BACKGROUNDS,
    COLORS,
    INVERSE,
    RELATIONS,
    SHAPES,
    SIZES,
    Object,
    Scene,
    relation_between,
)
from dalle_mini_impl.data.synthetic.shapes import (
    ShapesConfig,
    claims_held_out,
    describe_scene,
    is_held_out,
    pair_held_out,
    random_scene,
    relation_held_out,
)
from dalle_mini_impl.data.synthetic.swaps import SWAP_KINDS, swap_attribute

SPLITS = ("train", "validation", "held_out")

STAR_ABOVE_RING = Scene(
    (Object("star", "red", "small", 24, 0), Object("ring", "blue", "large", 16, 32)), "white"
)


def drawn(split: str = "train", count: int = 300, **settings) -> list[Scene]:
    return [random_scene(index, split, ShapesConfig(**settings)) for index in range(count)]


def test_vocabulary_is_large_and_its_colors_far_apart():
    assert len(SHAPES) >= 8
    assert len(COLORS) >= 8
    assert len(BACKGROUNDS) >= 4
    assert set(RELATIONS) == set(INVERSE)
    colors = [np.array(rgb) for rgb in COLORS.values()]
    grounds = [np.array(rgb) for rgb in BACKGROUNDS.values()]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(colors, 2)) > 95
    assert min(np.linalg.norm(a - b) for a in colors for b in grounds) > 115


def test_scenes_depend_on_seed_split_and_index_only():
    config = ShapesConfig(seed=3)
    forwards = [random_scene(index, "train", config) for index in range(50)]
    backwards = [random_scene(index, "train", config) for index in reversed(range(50))][::-1]
    assert forwards == backwards
    assert forwards != drawn(count=50, seed=4)
    assert forwards != drawn("validation", count=50, seed=3)
    assert describe_scene(forwards[7], 7, "train", config) == describe_scene(
        forwards[7], 7, "train", config
    )


def test_an_eighth_of_the_pairs_is_held_out_and_every_part_stays_seen():
    held = [(c, s) for c in COLORS for s in SHAPES if pair_held_out(c, s)]
    assert len(held) / (len(COLORS) * len(SHAPES)) == pytest.approx(0.125)
    assert len({c for c, _ in held}) == len({s for _, s in held}) == 8
    seen = {(item.color, item.shape) for scene in drawn(count=2000) for item in scene.objects}
    assert len(seen) == len(COLORS) * len(SHAPES) - len(held)


def test_held_out_relations_are_the_same_seen_from_either_object():
    cases = list(itertools.product(SHAPES, RELATIONS, SHAPES))
    held = [case for case in cases if relation_held_out(*case)]
    assert len(held) / len(cases) == pytest.approx(0.125)
    assert all(
        relation_held_out(a, relation, b) == relation_held_out(b, INVERSE[relation], a)
        for a, relation, b in cases
    )
    assert {first for first, _, _ in held} == set(SHAPES)


def test_splits_keep_compositions_apart():
    assert not any(map(is_held_out, drawn("train") + drawn("validation")))
    assert all(map(is_held_out, drawn("held_out")))


@pytest.mark.parametrize("lattice", [8, 1])
def test_objects_lie_on_the_lattice_inside_and_apart(lattice):
    for scene in drawn(lattice=lattice):
        for item in scene.objects:
            assert item.x % lattice == item.y % lattice == 0
            assert min(item.x, item.y) >= 0
            assert max(item.x, item.y) + SIZES[item.size] <= 64
        for a, b in itertools.combinations(scene.objects, 2):
            apart_x = a.x + a.side < b.x or b.x + b.side < a.x
            assert apart_x or a.y + a.side < b.y or b.y + b.side < a.y


def test_shares_steer_the_number_of_objects():
    numbers = Counter(len(scene.objects) for scene in drawn(count=1000))
    assert numbers[1] == pytest.approx(400, abs=60)
    assert numbers[3] == pytest.approx(200, abs=60)
    assert {len(scene.objects) for scene in drawn(max_objects=2)} == {1, 2}
    triples = drawn(object_shares=(0, 0, 1), identical_shares=(0, 1))
    assert all(len({(i.shape, i.color, i.size) for i in s.objects}) == 1 for s in triples)


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(ValidationError, match="object_shares"):
        ShapesConfig(max_objects=1, object_shares=(0, 1, 0))
    with pytest.raises(ValidationError, match="identical_shares"):
        ShapesConfig(identical_shares=(0.5, 1.5))


@pytest.mark.parametrize("split", SPLITS)
def test_captions_are_true_short_varied_and_informative(split):
    config = ShapesConfig(captions_per_scene=3)
    captions, colored = [], 0
    for index, scene in enumerate(drawn(split)):
        for caption, claims in describe_scene(scene, index, split, config):
            assert all(verify_claims(claims, scene).values())
            assert sum(item.count for item in claims.objects) == len(scene.objects)
            assert all(item.shape in caption for item in claims.objects)
            assert all(item.color in caption for item in claims.objects if item.color)
            assert claims.background is None or claims.background in caption
            assert len(caption.split()) <= 20
            colored += all(item.color for item in claims.objects)
            captions.append(caption)
    assert colored / len(captions) > 0.9
    assert len(set(captions)) > 0.6 * len(captions)


def test_one_claim_has_many_wordings():
    claims = Claims(
        (ObjectClaim("star", "orange", "small"), ObjectClaim("ring", "blue", "large")),
        "above",
        "white",
    )
    rng = random.Random(0)
    wordings = {phrase_claims(claims, rng) for _ in range(200)}
    assert len(wordings) > 20
    assert "a small orange star above a large blue ring on a white background" in wordings
    assert phrase_claims(Claims((ObjectClaim("cross", "red", None, 3),)), rng).endswith(
        "three red crosses"
    )


def test_two_object_captions_mostly_tell_a_clear_relation():
    rng = random.Random(0)
    pairs = drawn("validation", object_shares=(0, 1, 0), identical_shares=(0, 0))
    share = sum(random_claims(scene, rng).relation is not None for scene in pairs) / len(pairs)
    assert share > 0.6
    assert sum(relation_between(*s.objects) is not None for s in pairs) / len(pairs) > 0.93


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        (Claims((ObjectClaim("star"), ObjectClaim("ring")), "above"), {"relation": True}),
        (Claims((ObjectClaim("ring"), ObjectClaim("star")), "above"), {"relation": False}),
        (Claims((ObjectClaim("star"), ObjectClaim("ring")), "left of"), {"relation": False}),
        (Claims((ObjectClaim("star", "red"), ObjectClaim("ring", "blue"))), {"color": True}),
        (
            Claims((ObjectClaim("star", "blue"), ObjectClaim("ring", "red"))),
            {"object": True, "color": False},
        ),
        (
            Claims((ObjectClaim("star", size="large"), ObjectClaim("ring", size="small"))),
            {"size": False, "object": True},
        ),
        (Claims((ObjectClaim("star", "red"),)), {"object": True, "color": True, "count": False}),
        (Claims((ObjectClaim("star", count=2),)), {"object": False, "count": True}),
        (Claims((ObjectClaim("heart"), ObjectClaim("ring"))), {"object": False, "count": True}),
        (Claims((ObjectClaim("star", count=3),)), {"object": False, "count": False}),
        (Claims((ObjectClaim("star"),), background="white"), {"background": True}),
        (Claims((ObjectClaim("star"),), background="black"), {"background": False}),
    ],
)
def test_claims_are_judged_kind_by_kind(claims, expected):
    truth = verify_claims(claims, STAR_ABOVE_RING)
    assert {kind: truth[kind] for kind in expected} == expected
    assert ("relation" in truth) == (claims.relation is not None)
    assert ("background" in truth) == (claims.background is not None)
    assert ("color" in truth) == any(item.color for item in claims.objects)


def test_the_best_assignment_decides_between_alike_objects():
    scene = Scene(
        (Object("star", "red", "small", 0, 0), Object("star", "blue", "small", 40, 0)), "white"
    )
    claims = Claims((ObjectClaim("star", "blue"), ObjectClaim("star")), "right of")
    assert all(verify_claims(claims, scene).values())
    assert not any(verify_claims(claims, Scene((), "white")).values())


def test_swaps_are_untrue_of_the_scene():
    rng = random.Random(0)
    config = ShapesConfig()
    for index, scene in enumerate(drawn(count=150)):
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


def test_claims_name_held_out_compositions():
    color, shape = next((c, s) for c in COLORS for s in SHAPES if pair_held_out(c, s))
    assert claims_held_out(Claims((ObjectClaim(shape, color),)))
    assert not claims_held_out(Claims((ObjectClaim(shape),)))
    first, second = next((a, b) for a in SHAPES for b in SHAPES if relation_held_out(a, "above", b))
    objects = (ObjectClaim(first), ObjectClaim(second))
    assert claims_held_out(Claims(objects, "above"))
    assert claims_held_out(Claims(objects[::-1], "below"))
    assert not claims_held_out(Claims(objects, "below"))


def test_scenes_and_claims_survive_json():
    rng = random.Random(0)
    for scene in drawn(count=50):
        assert Scene.from_dict(json.loads(json.dumps(scene.to_dict()))) == scene
        claims = random_claims(scene, rng)
        assert Claims.from_dict(json.loads(json.dumps(claims.to_dict()))) == claims


@pytest.mark.parametrize("size", [64, 32, 128])
def test_images_show_the_named_colors_with_soft_edges(size):
    scene = Scene((Object("circle", "green", "large", 8, 32),), "beige")
    image = render_scene(scene, size)
    assert image.size == (size, size)
    assert image.mode == "RGB"
    center = (20 * size // 64, 44 * size // 64)
    assert image.getpixel(center) == COLORS["green"]
    assert image.getpixel((size - 1, 0)) == BACKGROUNDS["beige"]
    assert len({tuple(rgb) for rgb in np.asarray(image).reshape(-1, 3)}) > 4

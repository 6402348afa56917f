"""Random scenes and the compositional split of the shapes collection."""

import itertools
import json
import random
from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from dalle_mini_impl.data.synthetic.claims import Claims, ObjectClaim, random_claims
from dalle_mini_impl.data.synthetic.scenes import (
    BACKGROUNDS,
    COLORS,
    INVERSE,
    SHAPES,
    SIZES,
    Object,
    Scene,
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
from tests.data.synthetic.generated import random_scenes


def test_vocabulary_is_large_and_its_colors_far_apart():
    assert len(SHAPES) >= 8
    assert len(COLORS) >= 8
    assert len(BACKGROUNDS) >= 4
    colors = [np.array(rgb) for rgb in COLORS.values()]
    grounds = [np.array(rgb) for rgb in BACKGROUNDS.values()]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(colors, 2)) > 95
    assert min(np.linalg.norm(a - b) for a in colors for b in grounds) > 115


def test_scenes_depend_on_seed_split_and_index_only():
    config = ShapesConfig(seed=3)
    forwards = [random_scene(index, "train", config) for index in range(50)]
    backwards = [random_scene(index, "train", config) for index in reversed(range(50))][::-1]
    assert forwards == backwards
    assert forwards != random_scenes(count=50, seed=4)
    assert forwards != random_scenes("validation", count=50, seed=3)
    assert describe_scene(forwards[7], 7, "train", config) == describe_scene(
        forwards[7], 7, "train", config
    )


def test_an_eighth_of_the_pairs_is_held_out_and_every_part_stays_seen():
    held = [(c, s) for c in COLORS for s in SHAPES if pair_held_out(c, s)]
    assert len(held) / (len(COLORS) * len(SHAPES)) == pytest.approx(0.125)
    assert len({c for c, _ in held}) == len({s for _, s in held}) == 8
    seen = {
        (item.color, item.shape) for scene in random_scenes(count=2000) for item in scene.objects
    }
    assert len(seen) == len(COLORS) * len(SHAPES) - len(held)


def test_held_out_relations_are_the_same_seen_from_either_object():
    cases = list(itertools.product(SHAPES, INVERSE, SHAPES))
    held = [case for case in cases if relation_held_out(*case)]
    assert len(held) / len(cases) == pytest.approx(0.125)
    assert all(
        relation_held_out(a, relation, b) == relation_held_out(b, INVERSE[relation], a)
        for a, relation, b in cases
    )
    assert {first for first, _, _ in held} == set(SHAPES)


def test_splits_keep_compositions_apart():
    assert not any(map(is_held_out, random_scenes("train") + random_scenes("validation")))
    assert all(map(is_held_out, random_scenes("held_out")))


def test_sides_vary_within_their_size_and_sizes_follow_sides():
    scenes = random_scenes(count=500)
    items = [item for scene in scenes for item in scene.objects]
    for size, sides in SIZES.items():
        found = Counter(item.side for item in items if item.size == size)
        assert set(found) == set(sides)
        assert min(found.values()) > len(items) / 24
    assert list(SIZES["small"]) == list(range(13, 19))
    assert list(SIZES["large"]) == list(range(22, 28))
    triples = random_scenes(object_shares=(0, 0, 1), identical_shares=(0, 1), count=50)
    assert any(len({item.side for item in scene.objects}) > 1 for scene in triples)
    assert [Object("star", "red", side, 0, 0).size for side in (4, 19, 21, 64)] == [
        "small", "small", "large", "large",
    ]  # fmt: skip


def test_objects_are_anywhere_unless_a_lattice_is_set():
    places = {item.x for scene in random_scenes(count=500) for item in scene.objects}
    assert places == set(range(64 - 13 + 1))


@pytest.mark.parametrize(("lattice", "sides"), [(8, {16, 24}), (2, {14, 16, 18, 22, 24, 26})])
def test_boxes_are_aligned_to_a_lattice(lattice, sides):
    scenes = random_scenes(lattice=lattice)
    assert {item.side for scene in scenes for item in scene.objects} == sides


@pytest.mark.parametrize("lattice", [16, 8, 1])
def test_objects_lie_on_the_lattice_inside_and_apart(lattice):
    for scene in random_scenes(lattice=lattice):
        for item in scene.objects:
            assert item.x % lattice == item.y % lattice == 0
            assert min(item.x, item.y) >= 0
            assert max(item.x, item.y) + item.side <= 64
        for a, b in itertools.combinations(scene.objects, 2):
            apart_x = a.x + a.side < b.x or b.x + b.side < a.x
            assert apart_x or a.y + a.side < b.y or b.y + b.side < a.y


def test_shares_steer_the_number_of_objects():
    numbers = Counter(len(scene.objects) for scene in random_scenes(count=1000))
    assert numbers[1] == pytest.approx(400, abs=60)
    assert numbers[3] == pytest.approx(200, abs=60)
    assert {len(scene.objects) for scene in random_scenes(max_objects=2)} == {1, 2}
    triples = random_scenes(object_shares=(0, 0, 1), identical_shares=(0, 1))
    assert all(len({(i.shape, i.color, i.size) for i in s.objects}) == 1 for s in triples)


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(ValidationError, match="object_shares"):
        ShapesConfig(max_objects=1, object_shares=(0, 1, 0))
    with pytest.raises(ValidationError, match="identical_shares"):
        ShapesConfig(identical_shares=(0.5, 1.5))


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
    for scene in random_scenes(count=50):
        assert Scene.from_dict(json.loads(json.dumps(scene.to_dict()))) == scene
        claims = random_claims(scene, rng)
        assert Claims.from_dict(json.loads(json.dumps(claims.to_dict()))) == claims

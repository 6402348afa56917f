"""Claims about scenes: true ones, their wording, and their verification."""

import random

import pytest

from dalle_mini_impl.data.synthetic.claims import (
    Claims,
    ObjectClaim,
    phrase_claims,
    random_claims,
    verify_claims,
)
from dalle_mini_impl.data.synthetic.scenes import Object, Scene, relation_between
from dalle_mini_impl.data.synthetic.shapes import (
    ShapesConfig,
    describe_scene,
)
from tests.data.synthetic.generated import SPLITS, random_scenes

STAR_ABOVE_RING = Scene(
    (Object("star", "red", 16, 24, 0), Object("ring", "blue", 24, 16, 32)), "white"
)


@pytest.mark.parametrize("split", SPLITS)
def test_captions_are_true_short_varied_and_informative(split):
    config = ShapesConfig(captions_per_scene=3)
    captions, colored = [], 0
    for index, scene in enumerate(random_scenes(split)):
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
    pairs = random_scenes("validation", object_shares=(0, 1, 0), identical_shares=(0, 0))
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
    scene = Scene((Object("star", "red", 16, 0, 0), Object("star", "blue", 16, 40, 0)), "white")
    claims = Claims((ObjectClaim("star", "blue"), ObjectClaim("star")), "right of")
    assert all(verify_claims(claims, scene).values())
    assert not any(verify_claims(claims, Scene((), "white")).values())

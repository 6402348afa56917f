"""Hard negatives are near, wrong and reproducible."""

import random

from dalle_mini_impl.data.negatives import hard_negatives, word_negatives
from dalle_mini_impl.data.synthetic.claims import phrase_claims, random_claims, verify_claims
from dalle_mini_impl.data.synthetic.shapes import ShapesConfig, random_scene

COLORED = [("red heart",), ("green heart",), ("blue heart", "azure heart"), ("red square",)]


def test_a_word_is_exchanged_for_one_seen_in_its_place():
    negative = word_negatives(COLORED)
    made = {negative(0, 0, random.Random(seed)) for seed in range(50)}
    assert {"green heart", "blue heart", "red square"} <= made
    assert "red heart" not in made


def test_another_caption_of_the_same_image_is_no_negative():
    negative = word_negatives(COLORED)
    made = {negative(2, 0, random.Random(seed)) for seed in range(50)}
    assert "azure heart" not in made
    assert made - {None}


def test_without_alternatives_there_is_none():
    assert word_negatives([("a lonely caption",)])(0, 0, random.Random(0)) is None


def test_negatives_of_scenes_are_false_of_the_scene():
    config = ShapesConfig()
    scenes = [random_scene(i, "train", config) for i in range(200)]
    claims = [[random_claims(scene, random.Random(i))] for i, scene in enumerate(scenes)]
    captions = [[phrase_claims(c[0], random.Random(0))] for c in claims]
    attributes = [{"claims": [c[0].to_dict()]} for c in claims]
    negative = hard_negatives(captions, attributes)
    for i in range(200):
        text = negative(i, 0, random.Random(i))
        assert text is not None
        assert text == negative(i, 0, random.Random(i))
        assert all(verify_claims(claims[i][0], scenes[i]).values())

"""Hard negatives are close to the caption, false and reproducible."""

import random
import re

import pytest

from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.negatives import hard_negatives, word_negatives
from dalle_mini_impl.data.sources import open_source
from dalle_mini_impl.data.synthetic.claims import (
    NUMBERS,
    RELATION_WORDS,
    SIZE_WORDS,
    Claims,
    ObjectClaim,
    verify_claims,
)
from dalle_mini_impl.data.synthetic.scenes import BACKGROUNDS, COLORS, SHAPES, Scene
from dalle_mini_impl.data.synthetic.shapes import claims_held_out

COLORED = [("red heart",), ("green heart",), ("blue heart", "azure heart"), ("red square",)]

SIZES = {word: size for size, words in SIZE_WORDS.items() for word in words}
RELATIONS = {word: relation for relation, words in RELATION_WORDS.items() for word in words}
COUNTS = {"a": 1, "an": 1, "two": NUMBERS.index("two"), "three": NUMBERS.index("three")}


def one_of(words) -> str:
    return f"({'|'.join(sorted(words, key=len, reverse=True))})"


NOUN = re.compile(
    f"{one_of(COUNTS)} (?:{one_of(SIZES)} )?(?:{one_of(COLORS)} )?{one_of(SHAPES)}(?:e?s)?"
)
GROUND = re.compile(f" (?:on|against) (?:a )?{one_of(BACKGROUNDS)}(?: background)?$")


def parse(caption: str) -> Claims:
    """What a caption of the shapes collection says, read from its words."""
    ground = GROUND.search(caption)
    body = caption[: ground.start()] if ground else caption
    relation = re.search(f" {one_of(RELATIONS)} ", body)
    objects = re.split(f", | and | {one_of(RELATIONS).replace('(', '(?:')} ", body)
    found = [NOUN.search(text) for text in objects]
    assert all(found), caption
    return Claims(
        tuple(ObjectClaim(m[4], m[3], SIZES[m[2]] if m[2] else None, COUNTS[m[1]]) for m in found),
        RELATIONS[relation[1]] if relation else None,
        ground[1] if ground else None,
    )


def test_a_word_is_replaced_by_one_seen_in_its_place():
    negative = word_negatives(COLORED)
    made = {negative(0, 0, random.Random(seed)) for seed in range(50)}
    assert {"green heart", "blue heart", "red square"} <= made
    assert "red heart" not in made


def test_another_caption_of_the_same_image_is_not_a_negative():
    negative = word_negatives(COLORED)
    made = {negative(2, 0, random.Random(seed)) for seed in range(50)}
    assert "azure heart" not in made
    assert made - {None}


def test_without_alternatives_there_is_no_negative():
    assert word_negatives([("a lonely caption",)])(0, 0, random.Random(0)) is None


def test_a_held_out_caption_is_no_negative():
    expressions = ("^GREEN heart$", "square")
    made = {word_negatives(COLORED, expressions)(0, 0, random.Random(seed)) for seed in range(50)}
    assert made - {None} == {"blue heart", "azure heart"}
    assert word_negatives(COLORED, (".",))(0, 0, random.Random(0)) is None


@pytest.fixture(scope="module")
def examples():
    return list(open_source(DataConfig(limit=100), "train"))


def test_the_parser_reads_what_captions_claim(examples):
    for example in examples:
        claims = [Claims.from_dict(values) for values in example.attributes["claims"]]
        assert list(map(parse, example.captions)) == claims


def test_negatives_of_scenes_are_false_of_the_scene(examples):
    captions, attributes = zip(*((e.captions, e.attributes) for e in examples), strict=True)
    negative = hard_negatives(captions, attributes, "train", ())
    for i, example in enumerate(examples):
        scene = Scene.from_dict(example.attributes["scene"])
        for j, caption in enumerate(example.captions):
            text = negative(i, j, random.Random(i))
            assert all(verify_claims(parse(caption), scene).values())
            assert not all(verify_claims(parse(text), scene).values()), (caption, text)
            assert text == negative(i, j, random.Random(i))


def test_only_images_of_the_held_out_split_have_held_out_negatives(examples):
    captions, attributes = zip(*((e.captions, e.attributes) for e in examples), strict=True)

    def share(split):
        negative = hard_negatives(captions, attributes, split, ())
        made = [negative(i, 0, random.Random(i)) for i in range(len(examples))]
        return sum(claims_held_out(parse(text)) for text in made if text) / len(made)

    assert share("train") == share("validation") == 0
    assert share("held_out") > 0.05

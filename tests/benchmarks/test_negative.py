"""The measurement of negative captions: its captions, and what it counts."""

import random

import pytest

from benchmarks.negative import ATTRIBUTES, Arguments, Count, measure, random_case
from dalle_mini_impl.data.synthetic.scenes import Object, Scene
from dalle_mini_impl.pipeline import TextToImage
from tests.tiny import tiny_run


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_negative_captions_name_what_the_caption_leaves_open(attribute):
    for seed in range(20):
        case = random_case(attribute, random.Random(seed))
        assert set(case.alone.split()) <= set(case.whole.split())
        assert not set(case.alone.split()) & set(case.caption.split()) - {"a"}
        assert set(case.caption.split()) <= set(case.whole.split()) | {"a", "an"}


def test_images_are_counted_by_what_they_show():
    case = random_case("color", random.Random(3))
    color = case.alone
    other = "red" if color != "red" else "blue"
    shape = case.claims.objects[0].shape
    wrong = "ring" if shape != "ring" else "star"
    count = Count()
    for seen, form in ((color, shape), (other, shape), (other, wrong)):
        count.add(case, Scene((Object(form, seen, 20, 10, 10),), "white"))
    assert (count.images, count.showing, count.right) == (3, 1, 2)


def test_all_kinds_are_sampled(tmp_path):
    model = TextToImage.from_pretrained(tiny_run(tmp_path / "run"), "cpu")
    arguments = Arguments(tmp_path, captions=1, images=2)
    counts = measure(model, "size", 1.5, arguments)
    assert {kind: count.images for kind, count in counts.items()} == {
        "none": 2,
        "whole": 2,
        "alone": 2,
    }

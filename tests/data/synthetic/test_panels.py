"""Images of two panels: how they are drawn, what their captions ask, what is held out."""

import json
import random
from collections import Counter

import numpy as np
import pytest

from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.negatives import hard_negatives
from dalle_mini_impl.data.sources import open_source
from dalle_mini_impl.data.store import prepare
from dalle_mini_impl.data.synthetic.panel_captions import (
    Request,
    describe_panels,
    fulfills,
    phrase_request,
    random_request,
    wrong_request,
)
from dalle_mini_impl.data.synthetic.panels import (
    CHANGE_KINDS,
    Change,
    Panel,
    PanelObject,
    Panels,
    PanelsConfig,
    apply_change,
    panels_match,
    random_panels,
)
from dalle_mini_impl.data.synthetic.rendering import render_panels
from dalle_mini_impl.data.synthetic.scenes import BACKGROUNDS, COLORS, SHAPES
from dalle_mini_impl.data.synthetic.shapes import pair_held_out

SPLITS = ("train", "validation", "held_out")
UPPER = Panel(
    (PanelObject("star", "red", "large", 0, 8), PanelObject("ring", "blue", "large", 32, 0)),
    "white",
)


def drawn(split: str = "train", count: int = 200, **settings) -> list[tuple[Panels, Change]]:
    return [random_panels(index, split, PanelsConfig(**settings)) for index in range(count)]


def test_images_depend_on_seed_split_and_index_only():
    assert drawn(count=20) == drawn(count=20)
    assert drawn(count=20) != drawn(count=20, seed=1)
    assert drawn(count=20) != drawn("validation", count=20)


def test_every_change_number_shape_color_and_background_occurs():
    images = drawn(count=600)
    kinds = Counter(change.kind for _, change in images)
    assert set(kinds) == set(CHANGE_KINDS)
    assert min(kinds.values()) > 80
    numbers = Counter(len(panels.upper.objects) for panels, _ in images)
    assert numbers[1] == pytest.approx(300, abs=50)
    lower = [panels.lower for panels, _ in images]
    assert {item.shape for panel in lower for item in panel.objects} == set(SHAPES)
    assert {item.color for panel in lower for item in panel.objects} == set(COLORS)
    assert {panel.background for panel in lower} == set(BACKGROUNDS)
    grounds = [change.background for _, change in images if change.kind == "mirrored"]
    assert 0.1 < 1 - grounds.count(None) / len(grounds) < 0.4


@pytest.mark.parametrize("lattice", [8, 1])
def test_objects_lie_on_the_lattice_inside_their_half_and_apart(lattice):
    for panels, _ in drawn(lattice=lattice):
        for panel in (panels.upper, panels.lower):
            for item in panel.objects:
                assert (item.x % lattice, item.y % lattice) == (0, 0)
                assert 0 <= item.x <= 64 - item.side
                assert 0 <= item.y <= 32 - item.side
            if len(panel.objects) == 2:
                first, second = panel.objects
                assert abs(first.x - second.x) >= 24 + 4


def test_changes_do_what_they_say_and_nothing_else():
    star, ring = UPPER.objects
    assert apply_change(Change("same"), UPPER) == UPPER
    blue = apply_change(Change("color", "cyan"), UPPER)
    assert [(item.shape, item.color, item.x) for item in blue.objects] == [
        ("star", "cyan", 0),
        ("ring", "cyan", 32),
    ]
    mirrored = apply_change(Change("mirrored", background="black"), UPPER)
    assert [(item.shape, item.x, item.y) for item in mirrored.objects] == [
        ("star", 40, 8),
        ("ring", 8, 0),
    ]
    assert mirrored.background == "black"
    outlined = apply_change(Change("outline"), UPPER)
    assert {item.style for item in outlined.objects} == {"outline"}
    assert [(item.shape, item.color) for item in outlined.objects] == [
        (star.shape, star.color),
        (ring.shape, ring.color),
    ]


def test_every_change_but_none_is_to_be_seen():
    for panels, change in drawn():
        assert panels_match(panels.lower, panels.upper) == (change == Change("same"))


def test_splits_keep_compositions_apart():
    def unseen(panels: Panels) -> bool:
        figures = (*panels.upper.objects, *panels.lower.objects)
        return any(pair_held_out(item.color, item.shape) for item in figures)

    assert not any(unseen(panels) for split in SPLITS[:2] for panels, _ in drawn(split))
    held_out = [panels for panels, _ in drawn("held_out", two_objects=0)]
    assert all(map(unseen, held_out))
    # Some are held out only by what the lower half is to become.
    assert not all(unseen(Panels(panels.upper, panels.upper)) for panels in held_out)


@pytest.mark.parametrize("size", [64, 32, 128])
def test_halves_are_drawn_apart_and_outlines_hollow(size):
    upper = Panel((PanelObject("square", "green", "large", 8, 8),), "white")
    image = render_panels(
        Panels(upper, apply_change(Change("outline", None, "black"), upper)), size
    )
    scale = size / 64

    def at(x: int, y: int) -> tuple[int, ...]:
        return image.getpixel((int(x * scale), int(y * scale)))

    assert image.size == (size, size)
    assert at(20, 20) == at(9, 9) == COLORS["green"]
    assert at(0, 0) == BACKGROUNDS["white"]
    assert at(8, 40) == COLORS["green"]
    assert at(20, 52) == at(0, 63) == BACKGROUNDS["black"]


@pytest.mark.parametrize("shape", SHAPES)
def test_an_outline_lies_within_the_shape_and_covers_less(shape):
    filled = Panel((PanelObject(shape, "blue", "large", 16, 4),), "white")
    image = render_panels(Panels(filled, apply_change(Change("outline"), filled)))
    cover = (255 - np.asarray(image).astype(int)[..., 0]) / (255 - COLORS["blue"][0])
    whole, line = cover[:32], cover[32:]
    assert (line <= whole + 0.2).all()
    assert 0.2 < line.sum() / whole.sum() < 0.85


@pytest.mark.parametrize("split", SPLITS)
def test_captions_speak_of_both_halves_and_are_true(split):
    config = PanelsConfig()
    captions = []
    for index, (panels, change) in enumerate(drawn(split, 80)):
        for caption, request in describe_panels(panels, change, index, split, config):
            assert fulfills(panels, request)
            words = caption.replace(",", "").split()
            assert {"top", "above"} & set(words)
            assert {"below", "bottom"} & set(words)
            assert change.color is None or change.color in words
            assert change.background is None or change.background in words
            assert len(words) <= 32
            captions.append(caption)
    assert len(set(captions)) > 0.6 * len(captions)


def test_one_request_has_many_wordings():
    rng = random.Random(0)
    wordings = {phrase_request(Request(Change("color", "blue")), rng) for _ in range(400)}
    assert len(wordings) > 50
    assert "a scene on the top, the same scene below in blue" in wordings
    assert "the exact same scene on the top in blue at the bottom" in wordings


def test_wrong_requests_are_untrue_and_of_every_kind():
    rng = random.Random(0)
    kinds: Counter[str] = Counter()
    for panels, change in drawn():
        request = random_request(panels, change, rng)
        wrong = wrong_request(request, panels, rng)
        assert not fulfills(panels, wrong)
        kinds[wrong.change.kind] += wrong.change != change
        kinds["upper"] += wrong.upper != request.upper
    assert set(kinds) == {*CHANGE_KINDS, "upper"}


def test_images_and_requests_survive_json():
    rng = random.Random(0)
    for panels, change in drawn(count=50):
        assert Panels.from_dict(json.loads(json.dumps(panels.to_dict()))) == panels
        request = random_request(panels, change, rng)
        assert Request.from_dict(json.loads(json.dumps(request.to_dict()))) == request


def test_the_collection_is_prepared_with_exact_negatives(tmp_path):
    config = DataConfig(
        path="panels",
        image_size=32,
        workers=1,
        panels=PanelsConfig(train_examples=6, validation_examples=3, held_out_examples=2),
    )
    store = prepare(config, "train", tmp_path, report=lambda line: None)
    assert len(store) == 6
    panels, _ = random_panels(4, "train", config.panels)
    assert np.array_equal(store.images[4], np.asarray(render_panels(panels, 32)))
    assert Panels.from_dict(store.attributes[4]["panels"]) == panels
    negative = hard_negatives(store.captions, store.attributes)
    text = negative(4, 1, random.Random(0))
    assert text
    assert text not in store.captions[4]
    other = config.model_copy(update={"panels": PanelsConfig(seed=1)})
    assert open_source(other, "train").fingerprint() != open_source(config, "train").fingerprint()


def test_an_odd_size_is_refused():
    with pytest.raises(ValueError, match="use 64"):
        DataConfig(path="panels", image_size=63)

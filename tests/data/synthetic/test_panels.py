"""Images of two panels: their changes, and what is held out of training."""

import json
import random
from collections import Counter

import numpy as np
import pytest

from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.negatives import hard_negatives
from dalle_mini_impl.data.preparation import prepare
from dalle_mini_impl.data.sources import open_source
from dalle_mini_impl.data.synthetic.panel_captions import (
    Request,
    random_request,
)
from dalle_mini_impl.data.synthetic.panels import (
    CHANGE_KINDS,
    TOLERANCE,
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
from dalle_mini_impl.data.synthetic.scenes import BACKGROUNDS, COLORS, SHAPES, SIZES
from dalle_mini_impl.data.synthetic.shapes import pair_held_out
from tests.data.synthetic.generated import SPLITS, panels_of

UPPER = Panel(
    (PanelObject("star", "red", 24, 0, 8), PanelObject("ring", "blue", 24, 32, 0)),
    "white",
)


def test_images_depend_on_seed_split_and_index_only():
    assert panels_of(count=20) == panels_of(count=20)
    assert panels_of(count=20) != panels_of(count=20, seed=1)
    assert panels_of(count=20) != panels_of("validation", count=20)


def test_every_change_number_shape_color_and_background_occurs():
    images = panels_of(count=600)
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
    for panels, _ in panels_of(lattice=lattice):
        for panel in (panels.upper, panels.lower):
            for item in panel.objects:
                assert (item.x % lattice, item.y % lattice) == (0, 0)
                assert 0 <= item.x <= 64 - item.side
                assert 0 <= item.y <= 32 - item.side
            if len(panel.objects) == 2:
                first, second = sorted(panel.objects, key=lambda item: item.x)
                assert second.x - first.x >= first.side + 4


def test_sides_vary_unless_a_lattice_is_set():
    def sides(lattice: int) -> set[int]:
        images = panels_of(lattice=lattice)
        return {item.side for panels, _ in images for item in panels.lower.objects}

    assert sides(1) == set(SIZES["large"])
    assert sides(8) == {24}


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
    for panels, change in panels_of():
        assert panels_match(panels.lower, panels.upper) == (change == Change("same"))


def test_mirrored_scenes_move_further_than_the_judge_forgives():
    mirrored = [panels for panels, change in panels_of(count=1500) if change.kind == "mirrored"]
    assert len(mirrored) > 200
    for panels in mirrored:
        pairs = zip(panels.upper.objects, panels.lower.objects, strict=True)
        assert max(abs(before.x - after.x) for before, after in pairs) > TOLERANCE


def test_splits_keep_compositions_apart():
    def unseen(panels: Panels) -> bool:
        figures = (*panels.upper.objects, *panels.lower.objects)
        return any(pair_held_out(item.color, item.shape) for item in figures)

    assert not any(unseen(panels) for split in SPLITS[:2] for panels, _ in panels_of(split))
    held_out = [panels for panels, _ in panels_of("held_out", two_objects=0)]
    assert all(map(unseen, held_out))
    # Some are held out only by what the lower half is to become.
    assert not all(unseen(Panels(panels.upper, panels.upper)) for panels in held_out)


def test_images_and_requests_survive_json():
    rng = random.Random(0)
    for panels, change in panels_of(count=50):
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
    negative = hard_negatives(store.captions, store.attributes, "train", ())
    text = negative(4, 1, random.Random(0))
    assert text
    assert text not in store.captions[4]
    other = config.model_copy(update={"panels": PanelsConfig(seed=1)})
    assert open_source(other, "train").fingerprint() != open_source(config, "train").fingerprint()

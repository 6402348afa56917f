"""Both halves of two panels are detected, and the requested change is recognized."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

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
from dalle_mini_impl.evaluation.detectors.panels import FoundPanel, find_panels, is_clean
from dalle_mini_impl.evaluation.detectors.scenes import UNKNOWN
from dalle_mini_impl.evaluation.suites.panels import ASPECTS, judge_change
from tests.evaluation.detectors.degradations import DEGRADATIONS, noisy

SAME = Change("same")
UPPER = Panel(
    (PanelObject("star", "red", 24, 0, 8), PanelObject("ring", "blue", 24, 32, 0)),
    "white",
)


def found(image: Image.Image) -> tuple[Panel, Panel]:
    return find_panels(np.asarray(image))


def same(expected: Panel, judged: Panel) -> bool:
    return all(judge_change(SAME, expected, judged).values())


def share_right(degrade, count: int, lattice: int = 1) -> float:
    """The share of images of which both halves and the change between them are recognized."""
    config = PanelsConfig(seed=11, lattice=lattice)
    right = 0
    for index in range(count):
        split = "held_out" if index % 4 == 0 else "validation"
        panels, change = random_panels(index, split, config)
        upper, lower = found(degrade(render_panels(panels)))
        read = same(panels.upper, upper) and same(panels.lower, lower)
        right += read and all(judge_change(change, upper, lower).values())
    return right / count


def smeared(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(4))


@pytest.mark.parametrize(("lattice", "count"), [(8, 200), (1, 40)])
def test_fresh_images_are_read_without_error(lattice, count):
    assert share_right(lambda image: image, count, lattice) >= 0.995


@pytest.mark.parametrize("degrade", DEGRADATIONS)
def test_degraded_images_are_mostly_read(degrade):
    assert share_right(degrade, 40) >= 0.9


def test_unrecognizable_images_are_not_read():
    assert share_right(smeared, 20) < 0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_known_filled_and_outlined_on_every_ground(shape):
    for at, color in enumerate(COLORS):
        background = tuple(BACKGROUNDS)[at % len(BACKGROUNDS)]
        upper = Panel((PanelObject(shape, color, 24, 13, 5),), background)
        lower = apply_change(Change("outline"), upper)
        judged = found(render_panels(Panels(upper, lower)))
        assert same(upper, judged[0])
        assert same(lower, judged[1])
        assert not same(upper, judged[1])


def test_no_change_is_taken_for_another():
    for index in range(40):
        panels, change = random_panels(index, "validation", PanelsConfig(seed=5))
        _, lower = found(render_panels(panels))
        assert all(judge_change(change, panels.upper, lower).values())
        for kind in CHANGE_KINDS:
            ground = "gray" if kind == "background" else change.background
            other = Change(kind, "pink" if kind == "color" else None, ground)
            if not panels_match(apply_change(other, panels.upper), panels.lower):
                assert not all(judge_change(other, panels.upper, lower).values())


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"shape": "heart"}, "shape"),
        ({"color": "pink"}, "color"),
        ({"style": "outline"}, "style"),
        ({"y": 0}, "place"),
    ],
)
def test_each_aspect_is_judged_by_itself(change, wrong):
    star, ring = UPPER.objects
    lower = Panel((ring, replace(star, **change)), "white")
    judged = judge_change(SAME, UPPER, found(render_panels(Panels(UPPER, lower)))[1])
    assert set(judged) == set(ASPECTS)
    assert [name for name, right in judged.items() if not right] == [wrong]


def test_missing_and_added_objects_and_another_ground_are_wrong():
    star, ring = UPPER.objects
    one = Panel((ring,), "black")
    _, lower = found(render_panels(Panels(UPPER, one)))
    judged = judge_change(SAME, UPPER, lower)
    assert not judged["count"]
    assert not judged["shape"]
    assert not judged["background"]
    _, both = found(render_panels(Panels(UPPER, UPPER)))
    added = judge_change(SAME, Panel((star,), "white"), both)
    assert [name for name, right in added.items() if not right] == ["count"]


def test_a_change_is_measured_by_the_given_half_not_by_the_sampled_one():
    """The lower half repeats a wrong upper one: it is not the same as what was given."""
    sampled = Panel((replace(UPPER.objects[0], shape="heart"), UPPER.objects[1]), "white")
    _, lower = found(render_panels(Panels(sampled, sampled)))
    assert not judge_change(SAME, UPPER, lower)["shape"]


def test_blobs_and_patchwork_are_no_known_shape():
    image = render_panels(Panels(UPPER, UPPER))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 52, 24, 64), fill=COLORS["green"])
    assert UNKNOWN in [item.shape for item in found(image)[1].objects]
    pen.rectangle((0, 40, 63, 63), fill=COLORS["green"])
    assert {item.shape for item in found(image)[1].objects} == {UNKNOWN}
    assert not judge_change(SAME, found(image)[1], found(image)[1])["shape"]


@pytest.mark.parametrize("change", [lambda image: image, noisy])
def test_true_halves_are_clean(change):
    for index in range(20):
        panels, _ = random_panels(index, "validation", PanelsConfig(seed=5))
        assert all(map(is_clean, found(change(render_panels(panels)))))


def test_ragged_shapes_and_specks_of_a_half_are_not_clean():
    image = render_panels(Panels(UPPER, UPPER))
    pen = ImageDraw.Draw(image)
    pen.rectangle((32, 32, 44, 36), fill=BACKGROUNDS["white"])
    pen.rectangle((28, 2, 30, 4), fill=COLORS["green"])
    upper, lower = found(image)
    assert same(UPPER, upper)
    assert same(UPPER, lower)
    assert (upper.specks, is_clean(upper)) == (1, False)
    assert (lower.specks, is_clean(lower)) == (0, False)


def test_images_of_any_size_are_read_and_noise_does_no_harm():
    assert same(UPPER, found(render_panels(Panels(UPPER, UPPER), 128))[1])
    values = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    find_panels(values)
    empty = found(Image.new("RGB", (64, 64), BACKGROUNDS["gray"]))
    assert empty == (FoundPanel((), "gray", 0),) * 2
    with pytest.raises(ValueError, match="square"):
        find_panels(values[:32])

"""The detector finds the rendered scene, also blurred and noisy, and takes no blob for a shape."""

import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmarks.detector import attached, pasted, shifted, specked
from dalle_mini_impl.data.synthetic.rendering import render_scene, shape_mask
from dalle_mini_impl.data.synthetic.scenes import BACKGROUNDS, COLORS, SHAPES, SIZES, Object, Scene
from dalle_mini_impl.data.synthetic.shapes import ShapesConfig, random_scene
from dalle_mini_impl.evaluation.detectors.scenes import UNKNOWN, FoundScene, find_scene, is_clean
from dalle_mini_impl.evaluation.suites.shapes import scene_content
from tests.evaluation.detectors.degradations import DEGRADATIONS, blurred, noisy


def found(image: Image.Image) -> FoundScene:
    return find_scene(np.asarray(image))


def same(truth: Scene, judged: Scene, tolerance: int = 2) -> bool:
    """Equal names, and every place and side within some pixels."""
    if truth.background != judged.background or len(truth.objects) != len(judged.objects):
        return False
    left = list(judged.objects)
    for item in truth.objects:
        match = [
            other
            for other in left
            if (item.shape, item.color, item.size) == (other.shape, other.color, other.size)
            and abs(item.x - other.x) <= tolerance
            and abs(item.y - other.y) <= tolerance
            and abs(item.side - other.side) <= tolerance
        ]
        if not match:
            return False
        left.remove(match[0])
    return True


def share_right(change, lattice: int, count: int = 300) -> float:
    config = ShapesConfig(lattice=lattice, seed=11)
    scenes = [
        random_scene(index, "held_out" if index % 4 == 0 else "validation", config)
        for index in range(count)
    ]
    return sum(same(scene, found(change(render_scene(scene)))) for scene in scenes) / count


@pytest.mark.parametrize("lattice", [8, 1])
def test_fresh_scenes_are_read_without_error(lattice):
    assert share_right(lambda image: image, lattice) >= 0.995


@pytest.mark.parametrize("change", DEGRADATIONS)
def test_degraded_images_are_mostly_read(change):
    assert share_right(change, 1) >= 0.95


@pytest.mark.parametrize("size", [128, 256])
def test_larger_images_are_read_on_the_same_canvas(size):
    scene = random_scene(3, "validation", ShapesConfig(object_shares=(0, 0, 1)))
    assert same(scene, found(render_scene(scene, size)))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_color_side_and_background_is_known(shape):
    for color in COLORS:
        for background in BACKGROUNDS:
            for side in (*SIZES["small"], *SIZES["large"]):
                scene = Scene((Object(shape, color, side, 21, 13),), background)
                judged = found(render_scene(scene))
                assert same(scene, judged, tolerance=0)
                assert is_clean(judged)


def test_touching_objects_are_separated_by_color():
    for first, second in [("red", "blue"), ("blue", "purple"), ("orange", "yellow")]:
        objects = (
            Object("square", first, 24, 8, 16),
            Object("circle", second, 24, 32, 16),
        )
        for background in BACKGROUNDS:
            scene = Scene(objects, background)
            assert same(scene, found(render_scene(scene)))


@pytest.mark.parametrize("change", [lambda image: image, blurred, noisy])
def test_true_shapes_are_clean_also_blurred_and_noisy(change):
    scenes = [random_scene(index, "validation", ShapesConfig(seed=5)) for index in range(100)]
    assert sum(is_clean(found(change(render_scene(scene)))) for scene in scenes) >= 98


def test_shapes_between_pixels_are_clean():
    """Four times as large, at any of the small pixels, and scaled down: anti-aliased edges."""
    for shape in SHAPES:
        for x in range(80, 84):
            image = Image.new("RGB", (256, 256), BACKGROUNDS["gray"])
            image.paste(COLORS["blue"], (x, 162 - x), shape_mask(shape, 94, 94))
            judged = found(image.resize((64, 64), Image.Resampling.BOX))
            assert [item.shape for item in judged.objects] == [shape]
            assert is_clean(judged)


@pytest.mark.parametrize("change", [shifted, pasted, specked])
def test_ragged_shapes_and_specks_fail_the_strict_grade_only(change):
    rng = random.Random(0)
    scenes = [random_scene(index, "validation", ShapesConfig(seed=5)) for index in range(100)]
    changed = [(scene, change(scene, rng)) for scene in scenes]
    judged = [(scene, find_scene(image)) for scene, image in changed if image is not None]
    assert len(judged) > 80
    right = sum(scene_content(scene) == scene_content(own) for scene, own in judged)
    assert right / len(judged) > 0.8
    assert sum(is_clean(own) for _, own in judged) / len(judged) < 0.06


def test_a_scratch_of_another_color_in_an_object_is_not_clean():
    scene = Scene((Object("square", "red", 24, 8, 16),), "white")
    image = render_scene(scene)
    ImageDraw.Draw(image).rectangle((14, 22, 16, 24), fill=COLORS["orange"])
    assert same(scene, found(image))
    assert not is_clean(found(image))


def test_blocks_attached_to_an_object_fail_the_strict_grade():
    rng = random.Random(0)
    scenes = [random_scene(index, "validation", ShapesConfig(seed=5)) for index in range(100)]
    changed = [(scene, attached(scene, rng)) for scene in scenes]
    judged = [(scene, find_scene(image)) for scene, image in changed if image is not None]
    assert len(judged) > 90
    # A block of 7 × 8 may count as a small square instead: then the scene is not the same.
    clean = [scene for scene, own in judged if is_clean(own) and same(scene, own)]
    assert not clean


@pytest.mark.parametrize("color", ["blue", "orange", "red", "gray", "beige"])
@pytest.mark.parametrize(("width", "height"), [(3, 3), (5, 5), (5, 8)])
def test_debris_of_any_color_on_a_square_is_not_clean(color, width, height):
    image = render_scene(Scene((Object("square", "red", 24, 20, 20),), "white"))
    assert is_clean(found(image))
    for x, y in [(44, 28), (44, 44), (20 - width, 25), (30, 20 - height)]:
        dirty = image.copy()
        dirty.paste({**COLORS, **BACKGROUNDS}[color], (x, y, x + width, y + height))
        assert not is_clean(found(dirty))


def test_debris_that_touches_at_a_corner_only_is_not_clean():
    image = render_scene(Scene((Object("heart", "pink", 16, 40, 40),), "black"))
    pen = ImageDraw.Draw(image)
    pen.rectangle((5, 5, 8, 8), fill=COLORS["green"])
    pen.rectangle((9, 9, 12, 12), fill=COLORS["green"])
    assert [item.shape for item in found(image).objects] == ["heart"]
    assert not is_clean(found(image))


def test_debris_of_two_colors_at_a_corner_of_an_object_is_not_clean():
    image = render_scene(Scene((Object("square", "red", 24, 20, 20),), "white"))
    image.paste(COLORS["green"], (44, 44, 47, 49))
    image.paste(COLORS["pink"], (47, 44, 50, 49))
    assert [item.shape for item in found(image).objects] == ["square"]
    assert not is_clean(found(image))


def test_debris_in_the_color_of_another_object_that_touches_is_not_clean():
    scene = Scene(
        (Object("square", "red", 24, 8, 16), Object("circle", "blue", 24, 32, 16)), "white"
    )
    image = render_scene(scene)
    assert is_clean(found(image))
    image.paste(COLORS["blue"], (12, 40, 16, 44))
    assert same(scene, found(image))
    assert not is_clean(found(image))


def test_specks_are_no_objects_and_blobs_are_unknown():
    scene = Scene((Object("heart", "pink", 16, 40, 40),), "black")
    image = render_scene(scene)
    pen = ImageDraw.Draw(image)
    pen.rectangle((5, 5, 8, 8), fill=COLORS["green"])
    assert same(scene, found(image))
    assert found(image).specks == 1
    assert not is_clean(found(image))
    pen.rectangle((4, 16, 34, 21), fill=COLORS["green"])
    judged = found(image)
    assert sorted(item.shape for item in judged.objects) == ["heart", UNKNOWN]


def test_fused_objects_are_no_known_shape():
    objects = (Object("star", "red", 24, 8, 16), Object("ring", "red", 24, 26, 22))
    judged = found(render_scene(Scene(objects, "white")))
    assert [item.shape for item in judged.objects] == [UNKNOWN]


def test_an_empty_image_has_a_background_only():
    assert found(Image.new("RGB", (64, 64), BACKGROUNDS["gray"])) == FoundScene((), "gray", 0)
    assert found(Image.new("RGB", (64, 64), COLORS["red"])).background in BACKGROUNDS


def test_noise_alone_is_read_without_failing():
    values = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert find_scene(values).background in BACKGROUNDS


def test_an_image_that_is_not_square_is_refused():
    with pytest.raises(ValueError, match="square"):
        find_scene(np.zeros((64, 32, 3), dtype=np.uint8))

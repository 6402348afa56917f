"""Scenes and panels are rendered in the named colors, with soft edges and hollow outlines."""

import numpy as np
import pytest

from dalle_mini_impl.data.synthetic.panels import (
    Change,
    Panel,
    PanelObject,
    Panels,
    apply_change,
)
from dalle_mini_impl.data.synthetic.rendering import render_panels, render_scene
from dalle_mini_impl.data.synthetic.scenes import BACKGROUNDS, COLORS, SHAPES, Object, Scene


@pytest.mark.parametrize("size", [64, 32, 128])
def test_images_show_the_named_colors_with_soft_edges(size):
    scene = Scene((Object("circle", "green", 24, 8, 32),), "beige")
    image = render_scene(scene, size)
    assert image.size == (size, size)
    assert image.mode == "RGB"
    center = (20 * size // 64, 44 * size // 64)
    assert image.getpixel(center) == COLORS["green"]
    assert image.getpixel((size - 1, 0)) == BACKGROUNDS["beige"]
    assert len({tuple(rgb) for rgb in np.asarray(image).reshape(-1, 3)}) > 4


@pytest.mark.parametrize("size", [64, 32, 128])
def test_halves_do_not_overlap_and_outlines_are_hollow(size):
    upper = Panel((PanelObject("square", "green", 24, 8, 8),), "white")
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
    filled = Panel((PanelObject(shape, "blue", 24, 16, 4),), "white")
    image = render_panels(Panels(filled, apply_change(Change("outline"), filled)))
    cover = (255 - np.asarray(image).astype(int)[..., 0]) / (255 - COLORS["blue"][0])
    whole, line = cover[:32], cover[32:]
    assert (line <= whole + 0.2).all()
    assert 0.2 < line.sum() / whole.sum() < 0.85

"""A trained model reads what it is told: exchanging an attribute in a caption changes the image.

The model is kept in tests/fixtures/swaps; tests/fixtures/swaps.yaml says how it was trained.
"""

from pathlib import Path

import numpy as np
import pytest

from dalle_mini_impl import TextToImage
from dalle_mini_impl.evaluation.detectors.scenes import find_scene

FIXTURE = Path(__file__).parent / "fixtures" / "swaps"
SEEDS = 8

PAIRS = {
    "color": [
        ("a large red circle on a white background", "a large blue circle on a white background"),
        ("a small green star on a black background", "a small yellow star on a black background"),
    ],
    "shape": [
        ("a large red circle on a white background", "a large red square on a white background"),
        ("a large blue cross on a gray background", "a large blue ring on a gray background"),
    ],
    "size": [
        (
            "a small blue diamond on a white background",
            "a large blue diamond on a white background",
        ),
        ("a small pink heart on a black background", "a large pink heart on a black background"),
    ],
    "background": [
        ("a large red circle on a white background", "a large red circle on a black background"),
        ("a small green star on a beige background", "a small green star on a gray background"),
    ],
}


@pytest.fixture(scope="module")
def model() -> TextToImage:
    return TextToImage.from_pretrained(FIXTURE, "cpu")


def shown(model: TextToImage, caption: str) -> list[dict[str, str]]:
    """What stands in one image for each seed; nothing where there is not exactly one object."""
    found = []
    settings = {"num_images": SEEDS, "candidates": SEEDS, "rank_by": "none", "guidance": 2.0}
    for result in model(caption, compile="off", **settings):
        scene = find_scene(np.asarray(result.image))
        if len(scene.objects) == 1:
            (item,) = scene.objects
            values = {"color": item.color, "shape": item.shape, "size": item.size}
            found.append({**values, "background": scene.background})
    return found


@pytest.mark.parametrize("attribute", list(PAIRS))
def test_exchanging_an_attribute_changes_it_and_nothing_else(model, attribute):
    right = total = 0
    for pair in PAIRS[attribute]:
        for caption in pair:
            _, size, color, shape, *_, background, _ = caption.split()
            asked = {"color": color, "shape": shape, "size": size, "background": background}
            right += sum(scene == asked for scene in shown(model, caption))
            total += SEEDS
    # The same seeds under the other caption show the other value: both cannot be right by chance.
    assert right / total > 0.8


def test_the_fixture_is_small():
    assert sum(file.stat().st_size for file in FIXTURE.iterdir()) < 2_000_000

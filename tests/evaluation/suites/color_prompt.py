"""A prompt that asks for a color, for tests of what all suites share."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from dalle_mini_impl.evaluation.suites.core import Judgment, SuitePrompt
from dalle_mini_impl.sampling.samples import Samples
from tests.evaluation.scored import scored_samples


@dataclass(frozen=True)
class ColorPrompt(SuitePrompt):
    """Red is right, a red that is not pure is not clean; every image has the right size."""

    @property
    def groups(self) -> tuple[str, ...]:
        return "red", "all colors"

    def judge(self, image: np.ndarray) -> Judgment:
        red = bool(image[0, 0, 0] > 127)
        clean = int(image[0, 0, 1]) == 0
        return Judgment({"color": red, "size": True}, clean, "red" if red else "black")

    def details(self) -> dict[str, str]:
        return {"color": "red"}


def color_samples(count: int = 4, right: int = 2) -> Samples:
    """Samples of which one is red, preferred by CLIP; seeds from 50."""
    images = [Image.new("RGB", (8, 8), "red" if at == right else "black") for at in range(count)]
    return scored_samples("something red", images, liked=right, first_seed=50)


RED = ColorPrompt("something red", "seen")

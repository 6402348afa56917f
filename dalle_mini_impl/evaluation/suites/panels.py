"""The panels suite: the upper half is given, the lower half sampled and judged by rule.

The lower half is right where it shows the upper one with the change that the caption asks for.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from dalle_mini_impl.data.synthetic.panel_captions import Request, phrase_request, random_request
from dalle_mini_impl.data.synthetic.panels import (
    CHANGE_KINDS,
    TOLERANCE,
    Change,
    Panel,
    PanelObject,
    Panels,
    PanelsConfig,
    apply_change,
    compose_panels,
)
from dalle_mini_impl.data.synthetic.rendering import render_panels
from dalle_mini_impl.evaluation.detectors.panels import find_panels, is_clean
from dalle_mini_impl.evaluation.detectors.scenes import UNKNOWN
from dalle_mini_impl.evaluation.suites.core import DATA_SPLITS, SPLITS, Judgment, SuitePrompt
from dalle_mini_impl.evaluation.suites.reconstructions import Original
from dalle_mini_impl.pipeline import TextToImage

SAME = Change("same")

ASPECTS: tuple[str, ...] = ("count", "shape", "color", "style", "place", "background")
"""What must be right in the lower half."""

ALL_CHANGES = "all changes"
"""The group of every prompt."""


@dataclass(frozen=True)
class PanelsPrompt(SuitePrompt):
    """A caption, and the image whose upper half is given with it."""

    request: Request
    panels: Panels

    @property
    def groups(self) -> tuple[str, ...]:
        return self.request.change.kind, ALL_CHANGES

    def given_image(self, image_size: int) -> Image.Image:
        """The upper half over an empty lower half."""
        upper = self.panels.upper
        return render_panels(Panels(upper, Panel((), upper.background)), image_size)

    def given_codes(self, model: TextToImage) -> Int[Tensor, "n"]:
        """The codes of the upper rows."""
        grid = model.image_tokenizer.grid
        codes = model.encode(self.given_image(model.image_tokenizer.image_size))
        codes[grid // 2 * grid :] = -1
        return codes

    def judge(self, image: UInt8[np.ndarray, "h w 3"]) -> Judgment:
        """Judge the lower half by the upper half that was given, not by the one in the image."""
        lower = find_panels(image)[1]
        correct = judge_change(self.request.change, self.panels.upper, lower)
        objects = [f"{item.style} {item.color} {item.shape}" for item in lower.objects]
        seen = f"{', '.join(objects) or 'nothing'} on {lower.background}"
        return Judgment(correct, is_clean(lower), seen)

    def details(self) -> dict[str, Any]:
        return {"request": self.request.to_dict(), "upper": self.panels.upper.to_dict()}


def panels_prompts(config: PanelsConfig, per_change: int, seed: int = 0) -> list[PanelsPrompt]:
    """`per_change` prompts for each kind of change and split, in the order of CHANGE_KINDS.

    A held-out image has a composition that training never shows, in its upper or lower half.
    """
    prompts: list[PanelsPrompt] = []
    for kind in CHANGE_KINDS:
        for split in SPLITS:
            rng = random.Random(f"panel suite/{config.seed}/{seed}/{kind}/{split}")
            for _ in range(per_change):
                number = 2 if rng.random() < config.two_objects else 1
                panels, change = compose_panels(rng, number, kind, DATA_SPLITS[split], config)
                request = random_request(panels, change, rng)
                caption = phrase_request(request, rng)
                prompts.append(PanelsPrompt(caption, split, request, panels))
    return prompts


def panels_originals(prompts: Sequence[PanelsPrompt], image_size: int) -> Iterator[Original]:
    """The prompts' complete images, to be reconstructed; each half is a score."""
    for prompt in prompts:
        image = render_panels(prompt.panels, image_size)
        yield Original(prompt.split, image, partial(_judge_halves, prompt))


def _judge_halves(prompt: PanelsPrompt, image: UInt8[np.ndarray, "h w 3"]) -> dict[str, bool]:
    upper, lower = find_panels(image)
    own = prompt.panels.upper
    right = {
        "upper": all(judge_change(SAME, own, upper).values()),
        "lower": all(judge_change(prompt.request.change, own, lower).values()),
    }
    clean = {"upper": is_clean(upper), "lower": is_clean(lower)}
    return {**right, **{f"{half}, strict": right[half] and clean[half] for half in right}}


def judge_change(change: Change, upper: Panel, lower: Panel) -> dict[str, bool]:
    """Which ASPECTS of the lower half are what the change makes of the upper half.

    Objects are compared under the assignment that makes most of their aspects right; a missing
    object is wrong in all of them.
    """
    expected = apply_change(change, upper)
    slots: list[PanelObject | None] = [*lower.objects[:6]]
    slots += [None] * (len(expected.objects) - len(slots))
    assignments = permutations(slots, len(expected.objects))
    best = max(
        (_compare_objects(expected, found) for found in assignments),
        key=lambda rows: sum(map(sum, rows)),
    )
    shape, color, style, place = (all(column) for column in zip(*best, strict=True))
    return {
        "count": len(lower.objects) == len(expected.objects),
        "shape": shape,
        "color": color,
        "style": style,
        "place": place,
        "background": lower.background == expected.background,
    }


def _compare_objects(
    expected: Panel, found: tuple[PanelObject | None, ...]
) -> list[tuple[bool, ...]]:
    """Whether shape, color, style and place of each object are right."""
    return [
        (False,) * 4
        if item is None
        else (
            item.shape == own.shape != UNKNOWN,
            item.color == own.color,
            item.style == own.style,
            max(abs(item.x - own.x), abs(item.y - own.y), abs(item.side - own.side)) <= TOLERANCE,
        )
        for own, item in zip(expected.objects, found, strict=True)
    ]

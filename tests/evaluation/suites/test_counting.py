"""Counts of what passes."""

from dataclasses import dataclass, replace

from dalle_mini_impl.evaluation.suites.core import ALL_CLAIMS, STRICT, judge_samples
from dalle_mini_impl.evaluation.suites.counting import count_cells
from tests.evaluation.suites.color_prompt import RED, ColorPrompt, color_samples


@dataclass(frozen=True)
class SizePrompt(ColorPrompt):
    """Has a score that other prompts of its group do not have."""

    def scores(self, correct, clean):
        return {"task": correct["size"], **super().scores(correct, clean)}


def test_cells_count_what_passes():
    prompts = [RED, RED, SizePrompt("something red", "seen"), replace(RED, split="held_out")]
    outcomes = [judge_samples(p, 2.0, color_samples(), (1, 2, 4), "clip") for p in prompts]
    cells = {
        (c.group, c.split, c.score, c.candidates, c.ranking): (c.successes, c.trials)
        for c in count_cells(outcomes, (1, 2, 4))
    }
    assert cells["red", "seen", "all claims", 1, "none"] == (0, 3)
    assert cells["red", "seen", "all claims", 2, "clip"] == (0, 3)
    assert cells["red", "seen", "all claims", 4, "clip"] == (3, 3)
    assert cells["red", "held_out", "all claims", 4, "clip"] == (1, 1)
    assert cells["all colors", "seen", "all claims", 2, "oracle"] == (0, 3)
    assert cells["all colors", "seen", "all claims", 4, "oracle"] == (3, 3)
    assert cells["red", "seen", "color", 4, "likelihood"] == (0, 3)
    assert cells["red", "seen", "size", 4, "likelihood"] == (3, 3)
    assert cells["red", "seen", "task", 1, "none"] == (1, 1)
    assert ("red", "held_out", "task", 1, "none") not in cells


def test_the_strict_score_asks_for_clean_shapes_too():
    clean = judge_samples(RED, 2.0, color_samples(), (1, 4), "clip")
    ragged = replace(clean, clean=(True, True, False, True))
    (first, second) = (
        {(c.score, c.ranking): c.successes for c in count_cells([outcome], (4,))}
        for outcome in (clean, ragged)
    )
    for choice in ("clip", "oracle"):
        assert (first[ALL_CLAIMS, choice], first[STRICT, choice]) == (1, 1)
        assert (second[ALL_CLAIMS, choice], second[STRICT, choice]) == (1, 0)

"""The failures of a suite on its page."""

from dalle_mini_impl.evaluation.report.suite_page import suite_page
from dalle_mini_impl.evaluation.suites.core import judge_samples
from tests.evaluation.suites.color_prompt import RED, color_samples


def test_failures_at_the_guidance_scale_are_shown():
    failed = judge_samples(RED, 2.0, color_samples(), (4,), "ratio")
    passed = judge_samples(RED, 2.0, color_samples(), (4,), "clip")
    shown = suite_page("Suite", [], [failed, passed, failed], 2.0, "a note")
    assert "red, seen: 2" in shown
    assert shown.count("<img") == 2
    for line in ("a note", RED.caption, "wrong: color", "seen: black", "seed 53"):
        assert line in shown
    assert "<img" not in suite_page("Suite", [], [failed], 1.0, "a note")

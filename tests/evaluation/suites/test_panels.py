"""The panels suite: what is given, what is asked, what passes."""

from dataclasses import replace

import numpy as np
import pytest

from dalle_mini_impl.data.synthetic.panel_captions import fulfills
from dalle_mini_impl.data.synthetic.panels import CHANGE_KINDS, Panel, Panels, PanelsConfig
from dalle_mini_impl.data.synthetic.rendering import render_panels
from dalle_mini_impl.data.synthetic.shapes import is_held_out
from dalle_mini_impl.evaluation.suites.panels import (
    ASPECTS,
    judge_change,
    panels_originals,
    panels_prompts,
)
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.sampling.given import Given
from tests.tiny import tiny_run


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    run = tiny_run(tmp_path_factory.mktemp("runs") / "tiny", data={"path": "panels"})
    return TextToImage.from_pretrained(run, "cpu")


def test_prompts_ask_every_change_of_both_splits():
    prompts = panels_prompts(PanelsConfig(), 6, seed=1)
    assert [prompt.request.change.kind for prompt in prompts[::12]] == list(CHANGE_KINDS)
    assert prompts == panels_prompts(PanelsConfig(), 6, seed=1)
    assert prompts != panels_prompts(PanelsConfig(), 6, seed=2)
    for prompt in prompts:
        assert fulfills(prompt.panels, prompt.request)
        unseen = is_held_out(prompt.panels.upper) or is_held_out(prompt.panels.lower)
        assert unseen == (prompt.split == "held_out")


def test_only_the_upper_half_is_given(model):
    for prompt in panels_prompts(PanelsConfig(), 2):
        image = np.asarray(prompt.given_image(64))
        assert np.array_equal(image[:32], np.asarray(render_panels(prompt.panels))[:32])
        assert len(np.unique(image[32:].reshape(-1, 3), axis=0)) == 1
        codes = prompt.given_codes(model)
        middle = len(codes) // 2
        assert codes[:middle].min() >= 0
        assert (codes[middle:] == -1).all()


def test_given_codes_stay_in_the_samples(model):
    prompt = panels_prompts(PanelsConfig(), 1)[0]
    given = prompt.given_codes(model)
    samples = next(model.sample([prompt.caption], [3], model.sampling, Given(given)))
    kept = given >= 0
    assert (samples.codes[:, kept] == given[kept]).all()


def test_the_lower_half_is_judged_by_the_half_that_was_given():
    for prompt in panels_prompts(PanelsConfig(), 1):
        right = prompt.judge(np.asarray(render_panels(prompt.panels)))
        assert right.correct == dict.fromkeys(ASPECTS, True)
        upper = Panel((), prompt.panels.upper.background)
        assert prompt.judge(np.asarray(render_panels(replace(prompt.panels, upper=upper)))) == right
        missing = prompt.judge(np.asarray(prompt.given_image(64)))
        assert not missing.correct["count"]
        assert missing.seen == f"nothing on {prompt.panels.upper.background}"


def test_an_unchanged_lower_half_does_not_pass_as_changed():
    for prompt in panels_prompts(PanelsConfig(), 60, seed=2):
        change, upper = prompt.request.change, prompt.panels.upper
        copied = replace(upper, background=change.background or upper.background)
        if change.kind not in ("same", "background"):
            assert not all(judge_change(change, upper, copied).values())


def test_originals_are_scored_by_half():
    prompts = panels_prompts(PanelsConfig(), 1)
    for prompt, original in zip(prompts, panels_originals(prompts, 64), strict=True):
        assert original.split == prompt.split
        assert original.judge(np.asarray(original.image)) == {
            "upper": True, "lower": True, "upper, strict": True, "lower, strict": True,
        }  # fmt: skip
        without_lower = render_panels(Panels(prompt.panels.upper, Panel((), "white")))
        assert original.judge(np.asarray(without_lower)) == {
            "upper": True, "lower": False, "upper, strict": True, "lower, strict": False,
        }  # fmt: skip

"""Captions of two panels: true ones, their wording, and hard negatives."""

import random
from collections import Counter

import pytest

from dalle_mini_impl.data.synthetic.panel_captions import (
    Request,
    describe_panels,
    fulfills,
    phrase_request,
    random_request,
    wrong_request,
)
from dalle_mini_impl.data.synthetic.panels import (
    CHANGE_KINDS,
    Change,
    PanelsConfig,
)
from tests.data.synthetic.generated import SPLITS, panels_of


@pytest.mark.parametrize("split", SPLITS)
def test_captions_speak_of_both_halves_and_are_true(split):
    config = PanelsConfig()
    captions = []
    for index, (panels, change) in enumerate(panels_of(split, 80)):
        for caption, request in describe_panels(panels, change, index, split, config):
            assert fulfills(panels, request)
            words = caption.replace(",", "").split()
            assert {"top", "above"} & set(words)
            assert {"below", "bottom"} & set(words)
            assert change.color is None or change.color in words
            assert change.background is None or change.background in words
            assert len(words) <= 32
            captions.append(caption)
    assert len(set(captions)) > 0.6 * len(captions)


def test_one_request_has_many_wordings():
    rng = random.Random(0)
    wordings = {phrase_request(Request(Change("color", "blue")), rng) for _ in range(400)}
    assert len(wordings) > 50
    assert "a scene on the top, the same scene below in blue" in wordings
    assert "the exact same scene on the top in blue at the bottom" in wordings


def test_wrong_requests_are_untrue_and_of_every_kind():
    rng = random.Random(0)
    kinds: Counter[str] = Counter()
    for panels, change in panels_of():
        request = random_request(panels, change, rng)
        wrong = wrong_request(request, panels, rng)
        assert not fulfills(panels, wrong)
        kinds[wrong.change.kind] += wrong.change != change
        kinds["upper"] += wrong.upper != request.upper
    assert set(kinds) == {*CHANGE_KINDS, "upper"}

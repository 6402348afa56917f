"""Sampling and judging, with a prompt that asks for a color."""

import pytest
from PIL import Image

from dalle_mini_impl.evaluation.suites.core import SuiteSettings, judge_samples, run_suite
from dalle_mini_impl.pipeline import TextToImage
from tests.evaluation.suites.color_prompt import RED, color_samples
from tests.tiny import tiny_run


def test_rankings_choose_among_the_first_n():
    outcome = judge_samples(RED, 2.0, color_samples(), (1, 2, 4), "clip")
    assert [own["color"] for own in outcome.correct] == [False, False, True, False]
    assert outcome.chosen[4, "none"] == 0
    assert outcome.chosen[4, "clip"] == 2
    assert outcome.chosen[2, "clip"] == 1
    assert outcome.chosen[4, "likelihood"] == 0
    assert outcome.chosen[4, "ratio"] == 3
    assert outcome.chosen[4, "both"] == 2
    assert outcome.failure is None


def test_a_failure_is_what_the_runs_ranking_chose():
    outcome = judge_samples(RED, 2.0, color_samples(), (1, 2, 4), "ratio")
    assert outcome.failure.candidate == 3
    assert outcome.failure.seen == "black"
    assert outcome.failure.image.shape == (8, 8, 3)


def test_an_outcome_is_written_down_to_each_candidate():
    values = judge_samples(RED, 2.0, color_samples(), (1, 2, 4), "clip").to_dict()
    assert values["wrong"] == [["color"], ["color"], [], ["color"]]
    assert values["clean"] == [True] * 4
    assert values["clip_score"] == [0.0, 0.1, 0.9, 0.3]
    assert values["log_likelihood"] == [0.0, -1.0, -2.0, -3.0]
    assert (values["group"], values["split"], values["seed"]) == ("red", "seen", 50)
    assert values["color"] == "red"


@pytest.mark.parametrize("given", [False, True])
def test_every_prompt_is_sampled_at_every_guidance_from_seeds_of_its_own(
    tmp_path, monkeypatch, given
):
    model = TextToImage.from_pretrained(tiny_run(tmp_path / "run"), "cpu")
    if given:
        codes = model.encode(Image.new("RGB", (32, 32), "red"))
        monkeypatch.setattr(type(RED), "given_codes", lambda self, model: codes)
    settings = SuiteSettings((1.0, 2.0), candidates=(1, 3), seed=2)
    lines = []
    outcomes = run_suite(model, [RED, RED], settings, lines.append)
    assert [outcome.guidance for outcome in outcomes] == [1.0, 1.0, 2.0, 2.0]
    assert [outcome.seed for outcome in outcomes] == [2 << 32, (2 << 32) + 1024] * 2
    assert all(len(outcome.correct) == 3 for outcome in outcomes)
    if given:  # All codes are given, so that all candidates are the same image.
        assert all(len(set(outcome.log_likelihoods)) == 1 for outcome in outcomes)
    assert lines[-1] == "guidance 2: 2 of 2 prompts"


def test_another_seed_samples_the_same_prompt_from_other_noise(tmp_path):
    model = TextToImage.from_pretrained(tiny_run(tmp_path / "run"), "cpu")

    def likelihoods(seed: int) -> tuple[float, ...]:
        settings = SuiteSettings((1.0,), candidates=(2,), seed=seed)
        (outcome,) = run_suite(model, [RED], settings, lambda line: None)
        return outcome.log_likelihoods

    assert likelihoods(0) == likelihoods(0)
    assert len({*likelihoods(0), *likelihoods(1), *likelihoods(2)}) == 6

"""`dalle evaluate --suite panels`: what is given, what is asked, what counts as solved."""

import json

import numpy as np
import pytest
import torch

from dalle_mini_impl.cli import main
from dalle_mini_impl.data.synthetic.panel_captions import fulfills
from dalle_mini_impl.data.synthetic.panels import CHANGE_KINDS, Panels, PanelsConfig
from dalle_mini_impl.data.synthetic.rendering import render_panels
from dalle_mini_impl.data.synthetic.shapes import is_held_out
from dalle_mini_impl.evaluation.report.panels_page import panel_failures, panel_tables
from dalle_mini_impl.evaluation.report.shapes_page import Scores
from dalle_mini_impl.evaluation.suites.panels import (
    OVERALL,
    count_panel_cells,
    judge_panel_reconstructions,
    judged,
    panel_prompts,
)
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.sampling.samples import Samples
from tests.evaluation.scored import scored_samples
from tests.tiny import tiny_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("runs") / "tiny", data={"path": "panels"})


@pytest.fixture(scope="module")
def model(run):
    return TextToImage.from_pretrained(run, "cpu")


def test_prompts_ask_every_change_of_both_halves():
    prompts = panel_prompts(PanelsConfig(), 6, seed=1)
    assert [prompt.request.change.kind for prompt in prompts[::12]] == list(CHANGE_KINDS)
    assert prompts == panel_prompts(PanelsConfig(), 6, seed=1)
    assert prompts != panel_prompts(PanelsConfig(), 6, seed=2)
    for prompt in prompts:
        assert fulfills(prompt.panels, prompt.request)
        unseen = is_held_out(prompt.panels.upper) or is_held_out(prompt.panels.lower)
        assert unseen == (prompt.half == "held_out")


def test_only_the_upper_half_is_given():
    for prompt in panel_prompts(PanelsConfig(), 2):
        given = np.asarray(prompt.given(64))
        assert np.array_equal(given[:32], np.asarray(render_panels(prompt.panels))[:32])
        assert len(np.unique(given[32:].reshape(-1, 3), axis=0)) == 1


def candidates(prompt, right: int, count: int = 4) -> Samples:
    """Candidates of which one is as asked, liked by CLIP, not likely; the others lack objects."""
    upper = prompt.panels.upper
    empty = Panels(upper, type(upper)((), upper.background))
    images = [render_panels(prompt.panels if at == right else empty) for at in range(count)]
    return scored_samples(prompt.caption, images, liked=right, first_seed=70)


def test_rankings_choose_and_cells_count_whole_lower_halves():
    prompts = panel_prompts(PanelsConfig(), 1)
    outcomes = [judged(p, 2.0, candidates(p, 2), (1, 2, 4), "likelihood") for p in prompts]
    assert [all(truth.values()) for truth in outcomes[0].truths] == [False, False, True, False]
    assert outcomes[0].chosen[4, "clip"] == 2
    assert outcomes[0].failure.place == 0
    cells = {
        (c.group, c.half, c.score, c.candidates, c.ranking): (c.successes, c.trials)
        for c in count_panel_cells(outcomes, (1, 2, 4))
    }
    assert cells[OVERALL, "seen", "all claims", 1, "none"] == (0, 5)
    assert cells[OVERALL, "seen", "all claims", 4, "clip"] == (5, 5)
    assert cells[OVERALL, "held_out", "all claims", 2, "oracle"] == (0, 5)
    assert cells[OVERALL, "held_out", "all claims", 4, "oracle"] == (5, 5)
    assert cells["mirrored", "seen", "all claims", 4, "likelihood"] == (0, 1)
    assert cells["mirrored", "seen", "count", 4, "clip"] == (1, 1)

    scores = Scores(count_panel_cells(outcomes, (1, 2, 4)), "clip")
    text = "\n".join(map(str, panel_tables(scores)))
    assert "outline, held out" in text
    assert "100.0 % (57–100)" in text
    shown = "".join(panel_failures(outcomes, 2.0))
    assert prompts[0].caption in shown
    assert "seen below: nothing on" in shown
    assert "<img" not in "".join(panel_failures(outcomes, 1.0))


def test_reconstructions_are_judged_in_both_halves(model, monkeypatch):
    monkeypatch.setattr(model.image_tokenizer, "encode", lambda images: images)
    monkeypatch.setattr(model.image_tokenizer, "decode", lambda images: images)
    monkeypatch.setattr(model.image_tokenizer, "image_size", 64)
    prompts = panel_prompts(PanelsConfig(), 1)
    rows = judge_panel_reconstructions(model, prompts)
    assert rows == [(h, n, 5, 5) for h in ("seen", "held_out") for n in ("upper", "lower")]

    def wiped(images):
        images = images.clone()
        images[:, :, 32:] = torch.tensor(1.0)
        return images

    monkeypatch.setattr(model.image_tokenizer, "decode", wiped)
    assert [row[2] for row in judge_panel_reconstructions(model, prompts)] == [5, 0, 5, 0]


def test_the_given_codes_stay_and_the_suite_is_written(run, model, tmp_path, capsys):
    prompt = panel_prompts(run.experiment.data.panels, 1)[0]
    given = prompt.given(model.image_tokenizer.image_size)
    grid = model.image_tokenizer.grid
    results = model.complete(given, prompt.caption, grid // 2, seed=3)
    kept = model.encode(given)[: grid * grid // 2].tolist()
    assert all(list(result.codes[: len(kept)]) == kept for result in results)

    arguments = ["--run", str(run.path), "--suite", "panels", "--per-task", "1"]
    arguments += ["--candidates", "2", "1", "--out", str(tmp_path)]
    assert main(["evaluate", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "Guidance 2: lower halves as asked" in printed
    assert "all changes, held out" in printed
    values = json.loads((tmp_path / "panels.json").read_text(encoding="utf-8"))
    assert len(values["prompts"]) == len(CHANGE_KINDS) * 2
    assert all(len(prompt["wrong"]) == 2 for prompt in values["prompts"])
    assert {row["trials"] for row in values["reconstructions"]} == {len(CHANGE_KINDS)}
    page = (tmp_path / "panels.html").read_text(encoding="utf-8")
    assert page.count("<img") > 5
    assert "http" not in page


def test_a_run_of_another_collection_is_refused(tmp_path, capsys):
    other = tiny_run(tmp_path / "run", weights=())
    assert main(["evaluate", "--run", str(other.path), "--suite", "panels"]) == 2
    assert "was trained on shapes, not on panels" in capsys.readouterr().err

"""`dalle evaluate`: batched sampling, the judged suite, and each model's measures."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from dalle_mini_impl.cli import main
from dalle_mini_impl.data.synthetic.claims import phrase_claims, random_claims
from dalle_mini_impl.data.synthetic.rendering import render_scene
from dalle_mini_impl.data.synthetic.shapes import ShapesConfig, random_scene
from dalle_mini_impl.evaluation.measures.agreement import (
    measure_calibration,
    measure_hard_negatives,
    measure_retrieval,
)
from dalle_mini_impl.evaluation.measures.features import pixel_features
from dalle_mini_impl.evaluation.measures.likelihood import measure_likelihood, others
from dalle_mini_impl.evaluation.measures.reconstruction import measure_reconstructions
from dalle_mini_impl.evaluation.measures.samples import measure_memorization, measure_reranking
from dalle_mini_impl.evaluation.report.shapes_page import Scores, failures, suite_tables
from dalle_mini_impl.evaluation.suites.prompts import Prompt
from dalle_mini_impl.evaluation.suites.shapes import count_cells, judged
from dalle_mini_impl.pipeline import TextToImage
from tests.evaluation.scored import scored_samples
from tests.tiny import tiny_run

CAPTIONS = ["a red heart", "two large blue stars on white", "a ring above a cross"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="module")
def model(run):
    return TextToImage.from_pretrained(run, "cpu")


@pytest.mark.parametrize(("guidance", "batch_size"), [(1.0, 64), (2.0, 64), (2.0, 2), (2.0, 8)])
def test_sampling_many_captions_gives_the_images_of_each_alone(model, guidance, batch_size):
    config = model.sampling.model_copy(
        update={"guidance": guidance, "candidates": 4, "batch_size": batch_size}
    )
    seeds = [5, 100, 7]
    together = list(model.sample(CAPTIONS, seeds, config))
    for caption, seed, own in zip(CAPTIONS, seeds, together, strict=True):
        alone = next(model.sample([caption], [seed], config))
        assert own.caption == caption
        assert own.seeds == tuple(range(seed, seed + 4))
        assert torch.equal(own.codes, alone.codes)
        torch.testing.assert_close(own.pixels, alone.pixels, atol=1e-4, rtol=0)
        torch.testing.assert_close(own.clip_scores, alone.clip_scores, atol=1e-4, rtol=0)
        ratios = own.log_likelihood_ratios, alone.log_likelihood_ratios
        torch.testing.assert_close(*ratios, atol=1e-2, rtol=0)


def scene_results(count=4):
    """A prompt and candidates of which only the third shows it, liked by CLIP, not likely."""
    config = ShapesConfig(max_objects=1)
    rng = random.Random(0)
    scene = random_scene(0, "validation", config)
    item = scene.objects[0]
    wrong = replace(scene, objects=(replace(item, color="red" if item.color != "red" else "blue"),))
    claims = random_claims(scene, rng)
    prompt = Prompt("scene", phrase_claims(claims, rng), claims, "seen", 1)
    images = [render_scene(scene if at == 2 else wrong, 64) for at in range(count)]
    return prompt, scored_samples(prompt.caption, images, liked=2, first_seed=50)


def test_rankings_choose_among_the_first_n():
    prompt, results = scene_results()
    outcome = judged(prompt, 2.0, results, (1, 2, 4), "clip")
    assert [all(truth.values()) for truth in outcome.truths] == [False, False, True, False]
    assert outcome.chosen[4, "none"] == 0
    assert outcome.chosen[4, "clip"] == 2
    assert outcome.chosen[2, "clip"] == 1
    assert outcome.chosen[4, "likelihood"] == 0
    assert outcome.chosen[4, "ratio"] == 3
    assert outcome.chosen[4, "both"] == 2
    assert outcome.failure is None
    by_likelihood = judged(prompt, 2.0, results, (1, 2, 4), "likelihood")
    assert by_likelihood.failure.seed == 50


def test_cells_count_what_holds_and_tables_show_it():
    prompt, results = scene_results()
    outcomes = [judged(prompt, 2.0, results, (1, 2, 4), "likelihood")] * 3
    cells = {
        (c.score, c.candidates, c.ranking): (c.successes, c.trials)
        for c in count_cells(outcomes, (1, 2, 4))
    }
    assert cells["all claims", 1, "none"] == (0, 3)
    assert cells["all claims", 4, "clip"] == (3, 3)
    assert cells["all claims", 2, "oracle"] == (0, 3)
    assert cells["all claims", 4, "oracle"] == (3, 3)
    assert cells["object", 1, "none"] == (3, 3)
    assert cells["color", 1, "none"] == (0, 3)
    assert ("relation", 1, "none") not in cells
    assert ("task", 1, "none") not in cells

    text = "\n".join(map(str, suite_tables(Scores(count_cells(outcomes, (1, 2, 4)), "clip"))))
    assert "scene of one object, seen" in text
    assert "100.0 % (44–100)" in text
    assert "two objects" not in text
    shown = "".join(failures(outcomes, 2.0))
    assert prompt.caption in shown
    assert "wrong: color" in shown
    assert "".join(failures(outcomes, 1.0)).count("<img") == 0


def test_a_transformer_that_reads_pays_fewer_bits_for_the_true_caption():
    def reader(ids, codes):
        """Foretells the first code from the caption and guesses the second of four."""
        logits = torch.zeros(len(ids), 2, 4)
        logits[torch.arange(len(ids)), 0, ids[:, 0] % 4] = 20.0
        return logits.log_softmax(dim=2).gather(2, codes[:, :, None])[:, :, 0]

    ids = torch.tensor([[1, 0], [2, 0], [3, 0], [1, 0]])
    codes = torch.tensor([[1, 0], [2, 3], [3, 1], [1, 1]])
    captions = ["a", "b", "c", "a"]
    figures = measure_likelihood(reader, captions, ids, codes, 4, torch.device("cpu")).figures
    assert figures["true caption"]["bits_per_token"] == pytest.approx(1.0, abs=1e-3)
    assert figures["another image's"]["bits_per_token"] > 10
    assert figures["another image's"]["true_is_likelier"] == 1.0
    assert figures["none"]["more_than_true"] > 10


def test_another_caption_is_another_one():
    assert others(["a", "a", "b", "a"]) == [2, 2, 3, 2]
    assert others(["a", "a"]) == [0, 1]


def unit(*rows):
    return torch.nn.functional.normalize(torch.tensor(rows), dim=1)


def test_clip_measures():
    images = unit([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.9, 0.1])
    texts = unit([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0])
    same = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 1, 1]]).bool()
    retrieval = measure_retrieval(images, texts, same).figures
    assert retrieval["captions"] == 2
    assert retrieval["image_to_caption"]["recall@1"] == 1.0
    assert retrieval["caption_to_image"]["recall@1"] == 1.0
    wrong = measure_retrieval(images, texts[[1, 0, 0]], same).figures
    assert wrong["image_to_caption"]["recall@1"] == 0.0

    hard = measure_hard_negatives(images, texts, texts[[1, 0, 2]]).figures
    assert (hard["pairs"], hard["accuracy"]) == (3, pytest.approx(2 / 3))

    blind = measure_calibration(torch.zeros(8, 8), torch.eye(8).bool(), 4, "infonce").figures
    assert blind["loss"] == pytest.approx(blind["ln_batch"])
    sure = measure_calibration(50 * torch.eye(8), torch.eye(8).bool(), 4, "infonce").figures
    assert sure["loss"] == pytest.approx(0, abs=1e-4)
    assert sure["expected_calibration_error"] == pytest.approx(0, abs=1e-4)
    # Equal captions are no negatives: with all of them equal there is nothing to lose.
    equal = measure_calibration(torch.zeros(4, 4), torch.ones(4, 4).bool(), 4, "infonce").figures
    assert equal["loss"] == pytest.approx(0, abs=1e-6)
    pairs = measure_calibration(100 * torch.eye(4) - 50, torch.eye(4).bool(), 4, "siglip").figures
    assert pairs["expected_calibration_error"] == pytest.approx(0, abs=1e-4)


def test_reconstructions_show_the_worst_and_count_codes():
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.8
    decoded = images.clone()
    decoded[4] += 0.1
    codes = torch.tensor([[0, 1]]).repeat(6, 1)
    part = measure_reconstructions(images, decoded, codes, (8,), pixel_features(4))
    assert part.figures["psnr_worst"] == pytest.approx(20, abs=0.01)
    assert part.figures["code_usage"] == 0.25
    assert part.figures["perplexity"] == pytest.approx(2)
    assert "pixels averaged to 4 × 4" in part.tables[0].note
    assert part.images.index("original, 20.0 dB") < part.images.index("original, 100.0 dB")


def test_copies_of_training_images_are_noticed():
    generator = torch.Generator().manual_seed(0)
    train, real, fresh = torch.rand(3, 20, 3, 32, 32, generator=generator)
    decoded = real + 0.01
    samples = torch.cat((train[:5] + 0.005, fresh[:15]))
    part = measure_memorization(samples, train, real, decoded, pixel_features(16))
    assert part.figures["near_copies"] == 0.25
    assert part.figures["near_copies_held_out"] == 0.0
    assert part.figures["nearest"][:5] == [0, 1, 2, 3, 4]


def test_reranking_gains_what_the_ranking_finds():
    _, results = scene_results()
    likeness = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    part = measure_reranking([results], likeness, (1, 4), pixel_features(4))
    best = {name: values["likeness"] for name, values in part.figures["best_of_4"].items()}
    assert best == {
        "none": pytest.approx(0.1), "clip": pytest.approx(0.3),
        "likelihood": pytest.approx(0.1), "both": pytest.approx(0.3),
        "ratio": pytest.approx(0.4),
        "oracle": pytest.approx(0.4),
    }  # fmt: skip
    assert len({v["likeness"] for v in part.figures["best_of_1"].values()}) == 1


def test_the_suite_is_judged_from_the_command_line(run, tmp_path, capsys):
    arguments = ["--run", str(run.path), "--suite", "shapes", "--per-task", "1"]
    arguments += ["--guidance", "1", "2", "--candidates", "2", "1", "--out", str(tmp_path)]
    assert main(["evaluate", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "Guidance 2: tasks" in printed
    assert "binding, held out" in printed
    assert "scene of three objects, seen" in printed
    values = json.loads((tmp_path / "suite.json").read_text(encoding="utf-8"))
    assert len(values["prompts"]) == 2 * (8 + 3) * 2
    assert all(len(prompt["wrong"]) == 2 for prompt in values["prompts"])
    # Two objects are asked for by a task and by scenes: two groups.
    assert {c["trials"] for c in values["scores"] if "objects" in c["group"]} == {1}
    (cell,) = (
        c
        for c in values["scores"]
        if (c["guidance"], c["group"], c["half"], c["score"], c["candidates"], c["ranking"])
        == (2.0, "all tasks", "seen", "all claims", 2, "oracle")
    )
    assert cell["trials"] == 8
    assert cell["low"] <= cell["share"] <= cell["high"]
    page = (tmp_path / "suite.html").read_text(encoding="utf-8")
    assert page.count("<img") > 5
    assert "http" not in page


def test_a_run_is_measured_on_its_own_held_out_data(run, capsys):
    arguments = ["--run", str(run.path), "--max-examples", "20", "--candidates", "1", "2"]
    assert main(["evaluate", *arguments]) == 0
    out = run.path / "evaluation"
    values = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    parts = values["parts"]
    assert parts["Image tokenizer"]["images"] == 20
    assert "run's CLIP" in parts["Image tokenizer"]["features"]
    assert parts["Samples: distribution"]["images"] == 20
    assert parts["CLIP: hard negatives"]["pairs"] == 20
    assert set(parts["Reranking"]) >= {"best_of_1", "best_of_2"}
    assert all(np.isfinite(v["bits_per_token"]) for v in list(parts.values())[1].values())
    printed = capsys.readouterr().out
    assert "true caption" in printed
    page = (out / "evaluation.html").read_text(encoding="utf-8")
    assert "Worst reconstructions" in page
    assert "http" not in page


def test_parts_whose_models_are_missing_are_left_out(tmp_path):
    run = tiny_run(tmp_path / "run", weights=("image_tokenizer",))
    arguments = ["--run", str(run.path), "--max-examples", "8", "--split", "held_out"]
    assert main(["evaluate", *arguments]) == 0
    values = json.loads((run.path / "evaluation/evaluation.json").read_text(encoding="utf-8"))
    assert list(values["parts"]) == ["Image tokenizer"]
    assert values["parts"]["Image tokenizer"]["features"] == "pixels averaged to 8 × 8"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--candidates", "0"], "--candidates (0,): give positive numbers"),
        (["--guidance", "-1"], "--guidance (-1.0,): a scale is 0 at least"),
        (["--per-task", "0"], "--per-task 0"),
        (["--features", "nowhere:embed"], "write MODULE:FUNCTION"),
        (["--suite", "shapes"], "was trained on other/images, not on shapes"),
    ],
)
def test_impossible_options_are_refused(tmp_path, capsys, options, complaint):
    run = tiny_run(tmp_path / "run", weights=(), data={"path": "other/images"})
    assert main(["evaluate", "--run", str(run.path), *options]) == 2
    assert complaint in capsys.readouterr().err

"""The transformer's regularizers: each changes what is learned, and none what is measured."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dalle_mini_impl.pipeline import TextToImage
from tests.tiny import SETTINGS, tiny_run
from tests.training import regularized
from tests.training.regularized import ALL, data, learner, losses_of
from tests.training.toy import assert_equal

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ALL)
def test_each_changes_the_training_loss(name):
    plain, own = losses_of({}), losses_of({name: ALL[name]})
    assert own["image"] != plain["image"]
    assert (own["text"] == plain["text"]) == (name in ("label_smoothing", "code_replacement"))


def test_at_zero_the_training_loss_is_bit_equal():
    assert losses_of(dict.fromkeys(ALL, 0.0)) == losses_of({})


@pytest.mark.parametrize("name", ALL)
def test_none_changes_the_held_out_losses(name):
    batches = [data(0)]
    plain = learner({}).evaluate(batches)
    own = learner({name: 0.9})
    assert own.evaluate(batches) == own.evaluate(batches) == plain


def test_sampling_is_that_of_the_same_weights_without_any(tmp_path):
    runs = [
        tiny_run(tmp_path / name, transformer=SETTINGS["transformer"] | fields)
        for name, fields in {"plain": {}, "own": ALL}.items()
    ]
    models = [TextToImage.from_pretrained(run, "cpu") for run in runs]
    expected, found = (next(m.sample(["a red circle"], [0], m.sampling)) for m in models)
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(found.log_likelihoods, expected.log_likelihoods)


def test_replaced_codes_are_codes_of_the_batch_and_targets_stay():
    objective = learner({"code_replacement": 0.25}).objective
    batch = regularized.batch_of(torch.tensor([[3, 5], [3, 3], [7, 5]]).repeat(200, 8))
    prepared = objective.prepare(batch, torch.Generator().manual_seed(0))
    assert torch.equal(prepared.codes, batch.codes)
    changed = prepared.read_codes != batch.codes
    # A replacement may be the same code again: with a chance of (3 · 3 + 2 · 2 + 1) / 36.
    assert changed.float().mean().item() == pytest.approx(0.25 * (1 - 14 / 36), abs=0.015)
    assert set(prepared.read_codes.unique().tolist()) == {3, 5, 7}


def test_dropped_caption_tokens_are_read_as_padding_and_still_predicted():
    objective = learner({"caption_token_dropout": 0.3, "caption_dropout": 0.0}).objective
    batch = regularized.batch_of(torch.zeros(500, 16, dtype=torch.long))
    plain = learner({"caption_dropout": 0.0}).objective.prepare(batch)
    prepared = objective.prepare(batch, torch.Generator().manual_seed(0))
    assert torch.equal(prepared.captions, batch.captions)
    assert torch.equal(prepared.weights, plain.weights)
    tokens = batch.captions > 0
    kept = prepared.read_captions[tokens] == batch.captions[tokens]
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.03)
    assert not prepared.read_captions[tokens][~kept].any()


def test_resumed_equals_uninterrupted_with_all_of_them(tmp_path):
    whole, broken = regularized.resumed(tmp_path, compile="off")
    assert_equal(whole, broken)


def test_resumed_equals_uninterrupted_with_all_of_them_compiled(tmp_path):
    """In a process of its own: shape checks cannot be compiled."""
    script = "import sys; from tests.training import regularized; regularized.main(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("compiled the losses") == 3

"""No validation image trains, and held-out losses are measured on validation images alone."""

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_mini_impl.data.augment import load_images
from dalle_mini_impl.images import to_uint8
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.loading import load_image_tokenizer
from dalle_mini_impl.training import loop
from dalle_mini_impl.training.context import LEAST_VALIDATION, StageContext
from dalle_mini_impl.training.run_stages import run_stages
from tests.tiny import TWO_STEPS, tiny_experiment

STAGES = ("image_tokenizer", "transformer", "clip")
STEPS = 40
"""Batches of each stage that are read."""


def noise_images(folder, count):
    """Captioned images of which no two are equal."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(256, size=(32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"number {number}")
    return str(folder)


def create(path, data):
    captions = {"vocabulary": None, "vocabulary_size": 270, "context": 12}
    training = TWO_STEPS | {"previews": 0}
    return RunFolder.create(path, tiny_experiment(training, data=data, captions=captions))


@pytest.fixture
def recorded(monkeypatch):
    """What every stage was trained and measured on."""
    stages = {}

    class Recorded(loop.Loop):
        def __init__(self, objective, batches, config, files, preview=None, held_out=None):
            stages[files.stage] = (batches, held_out)
            super().__init__(objective, batches, config, files, preview, held_out)

    monkeypatch.setattr(loop, "Loop", Recorded)
    return stages


def contents(batch):
    """Every image of a batch, or its codes, as something that compares."""
    if hasattr(batch, "codes"):
        return {tuple(codes) for codes in batch.codes.tolist()}
    return {image.tobytes() for image in to_uint8(batch.images)}


@torch.no_grad()
def contents_of(store, run):
    """The images and the codes of a whole split."""
    images = load_images(store, np.arange(len(store)), run.experiment.data, None)
    codes = load_image_tokenizer(run).eval().encode(images)
    return {image.tobytes() for image in to_uint8(images)} | {tuple(c) for c in codes.tolist()}


def test_training_and_measuring_share_no_image(tmp_path, recorded):
    data = {"path": noise_images(tmp_path / "files", 80), "image_size": 32, "held_out": 0.3}
    run = create(tmp_path / "run", data)
    run_stages(run)
    context = StageContext(run)
    train, validation = contents_of(context.store, run), contents_of(context.validation, run)
    assert not train & validation
    assert not set(context.store.keys) & set(context.validation.keys)
    assert set(recorded) == set(STAGES)
    for batches, held_out in recorded.values():
        trained = set().union(*(contents(batches(step)) for step in range(STEPS)))
        measured = set().union(*map(contents, held_out.batches()))
        assert trained <= train
        assert measured <= validation
        assert held_out.images == len(measured) >= LEAST_VALIDATION
        again = set().union(*map(contents, held_out.batches()))
        assert again == measured
    for stage in STAGES:
        names = set().union(*(r for r in run.metrics() if r["stage"] == stage))
        assert any(name.startswith("held_out_") for name in names), stage


def test_without_validation_images_training_says_what_is_lost(tmp_path, recorded, capsys):
    data = {"path": noise_images(tmp_path / "files", 20), "image_size": 32, "held_out": 0.0}
    run = create(tmp_path / "run", data)
    run_stages(run)
    said = capsys.readouterr().out
    assert said.count("no held-out loss is measured") == 1
    assert "raise data.held_out (0)" in said
    assert all(held_out is None for _, held_out in recorded.values())
    assert run.has_weights("clip")

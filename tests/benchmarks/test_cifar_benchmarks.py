"""The CIFAR-10 classifier and the measures of CLIP at work: their parts on made-up images."""

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks.cifar import augmented
from benchmarks.cifar_classifier import Classifier, embed, whitening_filters
from benchmarks.clip_at_work import Classify, among_wrong, classify, probe_accuracy
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.experiment import Experiment
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.training.run_stages import run_stages


def made_images(n: int) -> torch.Tensor:
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_whitened_patches_are_uncorrelated():
    images = made_images(40).cumsum(dim=-1) / 32  # neighbors resemble each other
    filters = whitening_filters(images)
    responses = torch.nn.functional.conv2d(images * 4 - 2, filters[:12])
    responses = responses.movedim(1, 0).flatten(1)
    covariance = torch.cov(responses)
    off = covariance - torch.diag(covariance.diag())
    assert off.abs().max() < 0.05 * covariance.diag().max()
    assert torch.equal(filters[12:], -filters[:12])


def test_shifted_and_mirrored_images_keep_their_pixels():
    images = (made_images(8) * 255).to(torch.uint8)
    moved = augmented(images, 2, torch.Generator().manual_seed(1))
    assert moved.shape == images.shape
    assert not torch.equal(moved, images)
    inner = slice(2, -2)
    for image, own in zip(moved, images, strict=True):
        values = set(own.flatten().tolist())
        assert set(image[..., inner, inner].flatten().tolist()) <= values


def test_classifier_is_the_same_after_its_file(tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = Classifier((8, 16, 24)).eval()
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "c")
    images = made_images(4)
    with torch.no_grad():
        assert torch.allclose(Classifier.load(tmp_path / "c")(images), model(images))
        monkeypatch.setenv("CIFAR_CLASSIFIER", str(tmp_path / "c"))
        assert torch.allclose(embed(images), model.features(images), atol=1e-5)
        assert embed(torch.rand(2, 3, 64, 64)).shape == (2, 24)


def test_features_need_the_classifier_named(monkeypatch):
    monkeypatch.delenv("CIFAR_CLASSIFIER", raising=False)
    with pytest.raises(ConfigError, match="CIFAR_CLASSIFIER"):
        embed(made_images(1))


def test_probe_learns_what_vectors_tell_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (300,), generator=generator)
    vectors = torch.randn(300, 5, generator=generator)
    told = vectors + 4 * torch.nn.functional.one_hot(labels, 5)
    accuracy, hits = probe_accuracy(told[:200], labels[:200], told[200:], labels[200:], 1e-3)
    assert accuracy > 0.9
    assert hits == round(100 * accuracy)
    chance, _ = probe_accuracy(vectors[:200], labels[:200], vectors[200:], labels[200:], 1e-3)
    assert chance < 0.6


def test_the_caption_must_beat_every_wrong_one():
    images = torch.eye(4)
    wrong = [torch.zeros(4, 4), 2 * torch.eye(4)[[0, 0, 0, 0]]]
    part = among_wrong(images, torch.eye(4), wrong, [1, 2, 2, 2])
    assert part.figures["accuracy"] == 0.75  # the second set wins for the first image alone
    assert part.figures["wrong"] == 1.75
    assert part.figures["by_chance"] == pytest.approx((1 / 2 + 3 * 1 / 3) / 4)


def test_classes_are_named_from_the_captions_of_a_run(tmp_path):
    folder = tmp_path / "images"
    colors = {"red fox": (220, 30, 30), "blue jay": (30, 30, 220)}
    for label, color in colors.items():
        (folder / label).mkdir(parents=True)
        for number in range(12):
            image = Image.new("RGB", (32, 32), color)
            image.putpixel((number, 0), (0, 0, 0))  # no two files are copies
            image.save(folder / label / f"{number}.png")
    settings = {
        "data": {
            "path": str(folder), "image_size": 32, "held_out": 0.3, "workers": 1,
            "templates": ["a photo of a {label}", "{label}"],
        },
        "captions": {"vocabulary_size": 300, "context": 12},
        "clip": {
            "image_width": 8, "image_stages": 2, "text_width": 8, "text_heads": 2,
            "text_depth": 1, "reconstructions": 0.0, "hard_negatives": 0,
            "training": {"steps": 60, "batch_size": 8, "compile": "off", "ema": 0.9},
        },
    }  # fmt: skip
    run = RunFolder.create(tmp_path / "run", Experiment.model_validate(settings))
    for stage in ("captions", "clip"):
        run_stages(run, stage)
    figures = classify(Classify(run.path))[0].figures
    assert set(figures["per_class"]) == set(colors)
    assert figures["zero-shot, all templates"]["accuracy"] == 1.0
    assert figures["linear probe"]["accuracy"] == 1.0

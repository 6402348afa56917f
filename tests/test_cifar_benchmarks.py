"""The CIFAR-10 classifier and the measures of CLIP at work: their parts on made-up pictures."""

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.cifar import augmented
from benchmarks.cifar_classifier import Classifier, embed, whitening_filters
from benchmarks.clip_at_work import among_wrong, probe_accuracy
from dalle_mini_impl.config import ConfigError


def pictures(n: int) -> torch.Tensor:
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_whitened_patches_are_uncorrelated():
    images = pictures(40).cumsum(dim=-1) / 32  # neighbours resemble each other
    filters = whitening_filters(images)
    responses = torch.nn.functional.conv2d(images * 4 - 2, filters[:12])
    responses = responses.movedim(1, 0).flatten(1)
    covariance = torch.cov(responses)
    off = covariance - torch.diag(covariance.diag())
    assert off.abs().max() < 0.05 * covariance.diag().max()
    assert torch.equal(filters[12:], -filters[:12])


def test_shifted_and_mirrored_pictures_keep_their_pixels():
    images = (pictures(8) * 255).to(torch.uint8)
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
    images = pictures(4)
    with torch.no_grad():
        assert torch.allclose(Classifier.load(tmp_path / "c")(images), model(images))
        monkeypatch.setenv("CIFAR_CLASSIFIER", str(tmp_path / "c"))
        assert torch.allclose(embed(images), model.features(images), atol=1e-5)
        assert embed(torch.rand(2, 3, 64, 64)).shape == (2, 24)


def test_features_need_the_classifier_named(monkeypatch):
    monkeypatch.delenv("CIFAR_CLASSIFIER", raising=False)
    with pytest.raises(ConfigError, match="CIFAR_CLASSIFIER"):
        embed(pictures(1))


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
    part = among_wrong(images, torch.eye(4), wrong)
    assert part.figures["accuracy"] == 0.75  # the second set wins for the first picture alone
    assert part.figures["wrong"] == 2

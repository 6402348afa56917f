"""Measures of samples: near copies of training images, and what rankings gain."""

import pytest
import torch
from PIL import Image

from dalle_mini_impl.evaluation.measures.features import Features, pixel_features
from dalle_mini_impl.evaluation.measures.samples import (
    averages,
    measure_distribution,
    measure_memorization,
    measure_reranking,
)
from dalle_mini_impl.sampling.training_codes import TrainingCodes
from tests.evaluation.scored import scored_samples


def test_copies_of_training_images_are_noticed():
    generator = torch.Generator().manual_seed(0)
    train, images = torch.rand(2, 20, 3, 16, 16, generator=generator)
    known, codes, held_out = torch.randint(0, 500, (3, 20, 16), generator=generator)
    codes[:5] = known[:5]
    codes[:5, 3] = 501
    training = TrainingCodes(known.numpy()[None])
    part = measure_memorization(images, codes, held_out, training, train)
    assert part.figures["near_copies"] == 0.25
    assert part.figures["near_copies_held_out"] == 0.0
    assert part.figures["nearest"][:5] == [0, 1, 2, 3, 4]
    assert "25.0 %" in str(part.tables[0])


def test_reranking_gains_what_the_ranking_finds():
    samples = scored_samples("a ring", [Image.new("RGB", (8, 8))] * 4, liked=2, first_seed=50)
    likeness = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    part = measure_reranking([samples], likeness, (1, 4), pixel_features(4))
    best = {name: values["likeness"] for name, values in part.figures["best_of_4"].items()}
    assert best == {
        "none": pytest.approx(0.1), "clip": pytest.approx(0.3),
        "likelihood": pytest.approx(0.1), "both": pytest.approx(0.3),
        "ratio": pytest.approx(0.4),
        "oracle": pytest.approx(0.4),
    }  # fmt: skip
    assert len({v["likeness"] for v in part.figures["best_of_1"].values()}) == 1


def patterns(count: int, seed: int) -> torch.Tensor:
    """Images of two colors each, split anywhere, that are never gray."""
    rng = torch.Generator().manual_seed(seed)
    colors = torch.randint(0, 2, (count, 2, 3), generator=rng).float()
    splits = torch.randint(2, 14, (count,), generator=rng)
    left = torch.arange(16)[None] < splits[:, None]
    return torch.where(
        left[:, None, None], colors[:, 0, :, None, None], colors[:, 1, :, None, None]
    )


def test_fog_gets_no_precision_from_features_that_take_it_for_real():
    samples, real, train = patterns(64, 1), patterns(64, 2), patterns(64, 3)
    fog = averages(train)
    assert fog.std(dim=(2, 3)).max() < 0.4
    blind = Features("nothing", lambda images: 1e-4 * pixel_features(2).function(images).cos())
    for shown in (samples, fog):
        part = measure_distribution(shown, real, train, blind)
        assert part.figures["samples"]["precision"] is None
        assert "fog) would have" in part.warnings[0]
        assert "1.000" not in str(part.tables[0])


def test_features_that_see_fog_give_a_precision():
    samples, real, train = patterns(64, 1), patterns(64, 2), patterns(64, 3)
    # How far pixels are from gray: all the way in these images, and hardly in fog.
    color = Features("color", lambda images: (images - 0.5).abs().mean((1, 2, 3), keepdim=True))
    part = measure_distribution(samples, real, train, color)
    assert not part.warnings
    assert part.figures["samples"]["precision"] > 0.9
    assert part.figures["fog"]["precision"] < 0.5
    assert part.figures["fog"]["told_apart"] == 1
    assert measure_distribution(averages(train), real, train, color).figures["samples"][
        "precision"
    ] == pytest.approx(part.figures["fog"]["precision"])

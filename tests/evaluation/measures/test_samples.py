"""Measures of samples: near copies of training images, and what rankings gain."""

import pytest
import torch
from PIL import Image

from dalle_mini_impl.evaluation.measures.features import pixel_features
from dalle_mini_impl.evaluation.measures.samples import measure_memorization, measure_reranking
from tests.evaluation.scored import scored_samples


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

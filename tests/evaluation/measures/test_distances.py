"""Distances and rates against values known in closed form."""

import pytest
import torch

from dalle_mini_impl.evaluation.measures.distances import (
    calibration_error,
    frechet_distance,
    pair_calibration_error,
    precision_recall,
    recall_at,
    ssim,
    told_apart,
)


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def standardized(x):
    """Exactly zero mean and identity covariance."""
    x = x - x.mean(0)
    return (x @ torch.linalg.inv(torch.linalg.cholesky(x.T.double().cov()).T).float()).contiguous()


def test_frechet_distance_of_known_gaussians():
    x = standardized(normal(200, 4))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    # |Δμ|² for a shift; Σ (σ₁ - σ₂)² for scales of the axes.
    shift = torch.tensor([3.0, 0.0, 4.0, 0.0])
    assert frechet_distance(x, x + shift) == pytest.approx(25, rel=1e-4)
    scales = torch.tensor([1.0, 2.0, 3.0, 1.0])
    assert frechet_distance(x, x * scales) == pytest.approx(1 + 4, rel=1e-4)
    assert frechet_distance(x * scales, x + shift) == pytest.approx(30, rel=1e-4)


def test_frechet_distance_needs_two_rows():
    with pytest.raises(ValueError, match="1 and 5 rows"):
        frechet_distance(normal(1, 3), normal(5, 3))


def test_precision_falls_with_strange_images_and_recall_with_missing_ones():
    left, right = normal(60, 3), normal(60, 3, 1) + 100
    both = torch.cat((left, right))
    assert precision_recall(both, both) == (1.0, 1.0)
    assert precision_recall(both, left) == (1.0, 0.5)
    assert precision_recall(left, both) == (0.5, 1.0)
    assert precision_recall(left, right) == (0.0, 0.0)
    with pytest.raises(ValueError, match="k = 3"):
        precision_recall(left, right[:3])


def test_sets_are_told_apart_where_they_differ():
    same = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    assert told_apart(same[:100], same[100:]) == pytest.approx(0.5, abs=0.1)
    # The middle of all is within every neighborhood, so precision takes it for real.
    fog = 0.1 * same[100:]
    assert precision_recall(same[:100], fog)[0] > 0.9
    assert told_apart(same[:100], fog) > 0.85
    assert told_apart(same[:100], same[:100] + 1e-3) == 0


def test_ssim_of_each_image():
    image = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.8
    other = image + torch.tensor([0.1, 0.01, 0.0])[:, None, None, None]
    values = ssim(other, image)
    assert values[2] == pytest.approx(1.0, abs=1e-5)
    assert values[0] < values[1] < values[2]
    assert ssim(1 - image[:1], image[:1])[0] < 0


def test_recall_counts_any_relevant_candidate_and_no_luck():
    similarity = torch.tensor([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.2, 0.2, 0.2]])
    relevant = torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 1]]).bool()
    assert recall_at(similarity, relevant, (1, 2, 3)) == {
        1: pytest.approx(1 / 3), 2: pytest.approx(2 / 3), 3: 1.0,
    }  # fmt: skip


def test_calibration_is_confidence_less_accuracy():
    sure = torch.tensor([[0.8, 0.2]]).repeat(10, 1)
    right = torch.tensor([0] * 8 + [1] * 2)
    assert calibration_error(sure, right) == pytest.approx(0, abs=1e-6)
    assert calibration_error(sure, torch.zeros(10).long()) == pytest.approx(0.2, abs=1e-6)
    assert calibration_error(sure, torch.ones(10).long()) == pytest.approx(0.8, abs=1e-6)
    pairs = torch.full((10,), 0.3)
    assert pair_calibration_error(pairs, torch.arange(10) < 3) == pytest.approx(0, abs=1e-6)
    assert pair_calibration_error(pairs, torch.arange(10) < 8) == pytest.approx(0.5, abs=1e-6)

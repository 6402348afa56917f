"""The order of candidates by each ranking."""

import pytest
import torch

from dalle_mini_impl.sampling.config import SamplingConfig
from dalle_mini_impl.sampling.ranking import RANKINGS, available_ranking, rank, standardize

LIKELIHOODS = torch.tensor([-3.0, -1.0, -2.0, -1.0])
RATIOS = torch.tensor([1.0, 2.0, 4.0, 3.0])
CLIP = torch.tensor([0.9, 0.1, 0.2, 0.8])


@pytest.mark.parametrize(
    ("ranking", "order"),
    [
        ("none", [0, 1, 2, 3]),
        ("clip", [0, 3, 2, 1]),
        ("likelihood", [1, 3, 2, 0]),
        ("ratio", [2, 3, 1, 0]),
        ("both", [3, 1, 0, 2]),
    ],
)
def test_each_ranking_gives_its_order(ranking, order):
    assert rank(ranking, LIKELIHOODS, RATIOS, CLIP).tolist() == order


@pytest.mark.parametrize("ranking", ["clip", "both"])
def test_without_clip_scores_the_likelihood_is_used(ranking):
    assert available_ranking(ranking, has_clip=False) == "likelihood"
    assert rank(ranking, LIKELIHOODS, RATIOS).tolist() == [1, 3, 2, 0]


def test_both_does_not_depend_on_the_scores_units():
    scaled = rank("both", 1000 * LIKELIHOODS, RATIOS, CLIP / 1000)
    assert torch.equal(scaled, rank("both", LIKELIHOODS, RATIOS, CLIP))


def test_equal_scores_are_standardized_to_zero():
    assert standardize(torch.ones(3)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("ranking", RANKINGS)
def test_the_configuration_accepts_every_ranking(ranking):
    assert SamplingConfig(rank_by=ranking).rank_by == ranking

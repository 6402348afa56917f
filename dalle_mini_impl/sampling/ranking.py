"""The order of candidates by CLIP and by the transformer's likelihood."""

from typing import get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dalle_mini_impl.sampling.config import Ranking

RANKINGS: tuple[Ranking, ...] = get_args(Ranking)


def available_ranking(ranking: Ranking, has_clip: bool) -> Ranking:
    """`ranking`, or the likelihood where the ranking needs a CLIP and there is none."""
    return "likelihood" if ranking in ("clip", "both") and not has_clip else ranking


def rank(
    ranking: Ranking,
    log_likelihoods: Float[Tensor, "b"],
    log_likelihood_ratios: Float[Tensor, "b"],
    clip_scores: Float[Tensor, "b"] | None = None,
) -> Int[Tensor, "b"]:
    """The candidates' indices, best first; equal scores keep their order.

    "both" adds the CLIP score and the likelihood, each standardized over the candidates. Without
    CLIP scores, rankings that need them use the likelihood.
    """
    if ranking == "none":
        return torch.arange(len(log_likelihoods))
    scores = log_likelihoods
    if ranking == "ratio":
        scores = log_likelihood_ratios
    elif ranking == "clip" and clip_scores is not None:
        scores = clip_scores
    elif ranking == "both" and clip_scores is not None:
        scores = standardize(clip_scores) + standardize(log_likelihoods)
    return scores.argsort(descending=True, stable=True)


def standardize(scores: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
    """Scores with mean 0 and standard deviation 1."""
    return (scores - scores.mean()) / (scores.std(correction=0) + 1e-8)

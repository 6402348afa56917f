"""Captions ranked for an image by how well each explains its codes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dalle_mini_impl.models.clip import Clip
from dalle_mini_impl.models.dalle import Dalle

ROWS = 32
"""Captions scored at a time, to bound memory."""

RankBy = Literal["likelihood", "clip", "both"]


@dataclass(frozen=True)
class RankedCaption:
    """A caption with what was thought of it for one image."""

    caption: str
    log_likelihood: float
    """ln p(codes | caption), in nats."""
    log_likelihood_ratio: float
    """ln p(codes | caption) - ln p(codes | null caption), in nats: what the caption explains."""
    clip_score: float | None
    """Cosine similarity of image and caption in [-1, 1]; None where there is no CLIP."""


@torch.inference_mode()
def rank_captions(
    captions: Sequence[str],
    ids: Int[Tensor, "c t"],
    codes: Int[Tensor, "1 n"],
    dalle: Dalle,
    pixels: Float[Tensor, "1 3 h w"],
    clip: Clip | None = None,
    rank_by: RankBy = "likelihood",
) -> list[RankedCaption]:
    """The captions, best first, for the image of these codes and pixels.

    ids: the captions encoded. rank_by: the likelihood (the ratio gives the same order, as the null
    caption is one for all), CLIP's similarity, or the sum of both, each standardized over the
    captions. ValueError for an order by CLIP without a CLIP.
    """
    if rank_by != "likelihood" and clip is None:
        raise ValueError(f"rank_by is {rank_by!r}, but there is no CLIP; use likelihood")
    rows = torch.cat((torch.zeros_like(ids[:1]), ids))
    likelihoods = torch.cat([_likelihoods(dalle, part, codes) for part in rows.split(ROWS)])
    null, own = likelihoods[0], likelihoods[1:]
    score = own
    similarity: list[float | None] = [None] * len(captions)
    if clip is not None:
        cosines = torch.cat([clip.encode_text(part) for part in ids.split(ROWS)])
        cosines = cosines @ clip.encode_image(pixels)[0]
        similarity = cosines.tolist()
        if rank_by != "likelihood":
            score = cosines if rank_by == "clip" else _standard(cosines) + _standard(own)
    ranked = [
        RankedCaption(*fields)
        for fields in zip(captions, own.tolist(), (own - null).tolist(), similarity, strict=True)
    ]
    return [ranked[i] for i in score.argsort(descending=True, stable=True).tolist()]


def _likelihoods(
    dalle: Dalle, ids: Int[Tensor, "b t"], codes: Int[Tensor, "1 n"]
) -> Float[Tensor, "b"]:
    rows = codes.expand(len(ids), -1)
    return dalle.log_likelihood(ids, rows).sum(dim=1)


def _standard(scores: Float[Tensor, "c"]) -> Float[Tensor, "c"]:
    return (scores - scores.mean()) / (scores.std(correction=0) + 1e-8)

"""Captions ranked for an image by how well each explains its codes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dalle_mini_impl.kernels.chunks import in_chunks
from dalle_mini_impl.models.clip import Clip
from dalle_mini_impl.models.dalle import Dalle
from dalle_mini_impl.sampling.ranking import rank

CaptionRanking = Literal["likelihood", "clip", "both"]
"""The ratio would give the order of the likelihood: the null caption is the same for all."""


@dataclass(frozen=True)
class RankedCaption:
    """A caption with its scores for one image."""

    caption: str
    log_likelihood: float
    """ln p(codes | caption), in nats."""
    log_likelihood_ratio: float
    """ln p(codes | caption) - ln p(codes | null caption), in nats."""
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
    rank_by: CaptionRanking = "likelihood",
) -> list[RankedCaption]:
    """The captions, best first, for the image of these codes and pixels.

    ids: the captions encoded. ValueError for a ranking that needs a CLIP where there is none.
    """
    if rank_by != "likelihood" and clip is None:
        raise ValueError(f"rank_by is {rank_by!r}, but there is no CLIP; use likelihood")
    rows = torch.cat((torch.zeros_like(ids[:1]), ids))
    likelihoods = in_chunks(lambda part: _likelihoods(dalle, part, codes), rows)
    null, own = likelihoods[0], likelihoods[1:]
    cosines = None
    if clip is not None:
        texts = in_chunks(clip.encode_text, ids)
        cosines = texts @ clip.encode_image(pixels)[0]
    similarity = [None] * len(captions) if cosines is None else cosines.tolist()
    ranked = [
        RankedCaption(*fields)
        for fields in zip(captions, own.tolist(), (own - null).tolist(), similarity, strict=True)
    ]
    return [ranked[at] for at in rank(rank_by, own, own - null, cosines).tolist()]


def _likelihoods(
    dalle: Dalle, ids: Int[Tensor, "b t"], codes: Int[Tensor, "1 n"]
) -> Float[Tensor, "b"]:
    rows = codes.expand(len(ids), -1)
    return dalle.log_likelihood(ids, rows).sum(dim=1)

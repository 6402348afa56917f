"""Samples of given images whose scores are chosen so that each ranking takes another one."""

from collections.abc import Sequence

import torch
from PIL import Image

from dalle_mini_impl.images import to_tensor
from dalle_mini_impl.sampling.samples import Samples


def scored_samples(
    caption: str, images: Sequence[Image.Image], liked: int, first_seed: int
) -> Samples:
    """CLIP prefers the image at `liked`, the likelihood the first and its ratio the last."""
    at = torch.arange(len(images))
    return Samples(
        caption,
        tuple((first_seed + at).tolist()),
        to_tensor(images, images[0].width),
        torch.zeros(len(images), 1, dtype=torch.long),
        log_likelihoods=-1.0 * at,
        log_likelihood_ratios=1.0 * at,
        clip_scores=torch.where(at == liked, 0.9, 0.1 * at),
    )

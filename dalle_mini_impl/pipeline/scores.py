"""Sampled codes as images with the scores that rank them."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from dalle_mini_impl.models.clip import Clip
from dalle_mini_impl.models.dalle import Dalle
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer
from dalle_mini_impl.pipeline.selection import Selected
from dalle_mini_impl.sampling.given import Given
from dalle_mini_impl.sampling.samples import Samples


def decode_and_score(
    codes: Int[Tensor, "b n"],
    captions: Int[Tensor, "c t"],
    image_tokenizer: ImageTokenizer,
    dalle: Dalle,
    clip: Clip | None,
    given: Given | None = None,
) -> dict[str, Tensor]:
    """The tensors of `Samples`, `c k ...`, of equally many images of each caption.

    They are all computed at once: `sampling.batch_size` bounds how many they are.
    """
    pixels = image_tokenizer.decode(codes)
    pixels = pixels if given is None else given.paste(pixels)
    each = len(codes) // len(captions)
    rows = captions.repeat_interleave(each, dim=0)
    likelihoods = dalle.log_likelihood(rows, codes).sum(dim=1)
    null = dalle.log_likelihood(torch.zeros_like(rows), codes).sum(dim=1)
    fields = {
        "pixels": pixels,
        "codes": codes,
        "log_likelihoods": likelihoods,
        "log_likelihood_ratios": likelihoods - null,
    }
    if clip is not None:
        texts = clip.encode_text(captions).repeat_interleave(each, dim=0)
        fields["clip_scores"] = (clip.encode_image(pixels) * texts).sum(dim=-1)
    return {name: value.unflatten(0, (len(captions), each)) for name, value in fields.items()}


@torch.no_grad()
def score_one_by_one(
    samples: Samples,
    selected: Sequence[Selected],
    caption: Int[Tensor, "1 t"],
    image_tokenizer: ImageTokenizer,
    dalle: Dalle,
    clip: Clip | None,
    given: Given | None = None,
) -> Samples:
    """The selected candidates, each decoded and scored alone.

    Rounding depends on the number of images in a batch. Without others, equal codes give equal
    files, however many candidates they were chosen from.
    """
    order = [candidate.at for candidate in selected]
    models = image_tokenizer, dalle, clip
    rows = [decode_and_score(samples.codes[at : at + 1], caption, *models, given) for at in order]
    fields = {name: torch.cat([row[name][0] for row in rows]) for name in rows[0]}
    return Samples(samples.caption, tuple(samples.seeds[at] for at in order), **fields)

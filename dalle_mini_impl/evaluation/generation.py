"""Candidates for many captions at once: the captions' texts run together, then all their rows.

Each picture is the one that `TextToImage` paints for the same caption and seed.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dalle_mini_impl.images import to_images
from dalle_mini_impl.pipeline import Result, TextToImage
from dalle_mini_impl.sampling import SamplingConfig, decode, log_likelihood, uniform_noise


@torch.inference_mode()
def paint(
    model: TextToImage,
    captions: Sequence[str],
    seeds: Sequence[int],
    config: SamplingConfig,
) -> Iterator[list[Result]]:
    """For each caption its `config.candidates` candidates, in the order of their seeds.

    seeds: the seed of each caption's first candidate; candidate i has seed + i.
    config.batch_size bounds the pictures that are decoded together.
    """
    count = config.candidates
    together = max(1, config.batch_size // count)
    for start in range(0, len(captions), together):
        texts = captions[start : start + together]
        ids = torch.from_numpy(model.captions.encode(texts)).to(model.device)
        firsts = seeds[start : start + together]
        # Candidates of one caption are split where they alone exceed the batch.
        results: list[list[Result]] = [[] for _ in texts]
        for begin in range(0, count, config.batch_size):
            width = min(config.batch_size, count - begin)
            own = [first + begin + i for first in firsts for i in range(width)]
            rows = ids.repeat_interleave(width, dim=0)
            codes = sample_rows(model, ids, own, config)
            pixels = model.image_tokenizer.decode(codes)
            ratios = log_likelihood_ratios(model, rows, codes).tolist()
            scores = clip_scores(model, ids, pixels)
            images = to_images(pixels)
            for at, (image, seed) in enumerate(zip(images, own, strict=True)):
                caption = texts[at // width]
                row = tuple(codes[at].tolist())
                results[at // width].append(
                    Result(image, caption, seed, scores[at], ratios[at], row)
                )
        yield from results


def sample_rows(
    model: TextToImage, ids: Int[Tensor, "c t"], seeds: Sequence[int], config: SamplingConfig
) -> Int[Tensor, "b n"]:
    """Codes of b / c pictures for each of c captions: seeds are grouped by caption."""
    dalle = model.dalle
    noise = uniform_noise(seeds, dalle.image_length).to(model.device)
    guided = config.guidance != 1
    texts = torch.cat((ids, torch.zeros_like(ids[:1]))) if guided else ids
    cache = dalle.empty_cache(len(texts))
    first = dalle.prefill(texts, cache)
    # The null caption is one text, repeated under every picture.
    times = torch.full((len(texts),), len(seeds) // len(ids), device=model.device)
    times[len(ids) :] = len(seeds)
    cache, first = cache.repeat(times), first.repeat_interleave(times, dim=0)

    def step(code: Tensor, above: Tensor, index: int) -> Tensor:
        at = torch.tensor([index], device=model.device)
        return dalle.step(code, above, at, cache, reach=dalle.text_length + index + 1)

    return decode(first, step, noise, dalle.grid, config)


def log_likelihood_ratios(
    model: TextToImage, ids: Int[Tensor, "b t"], codes: Int[Tensor, "b n"]
) -> Float[Tensor, "b"]:
    """log p(codes | caption) - log p(codes | null caption) of each row, in nats."""
    conditional = model.dalle(ids, codes).image
    null = model.dalle(torch.zeros_like(ids), codes).image
    return log_likelihood(conditional, codes) - log_likelihood(null, codes)


def clip_scores(
    model: TextToImage, ids: Int[Tensor, "c t"], pixels: Float[Tensor, "b 3 h w"]
) -> list[float] | list[None]:
    """Cosine similarity of each picture with its caption; none where the run has no CLIP."""
    if model.clip is None:
        return [None] * len(pixels)
    texts = model.clip.encode_text(ids).repeat_interleave(len(pixels) // len(ids), dim=0)
    return (model.clip.encode_image(pixels) * texts).sum(-1).tolist()

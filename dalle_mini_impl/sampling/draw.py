"""Sampling as pure functions: guide, filter, draw.

Nothing here knows a model. Randomness comes as numbers: uniform numbers for each code, made from
each image's own seed, so that an image does not depend on its neighbors in the batch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dalle_mini_impl.sampling.config import SEEDS, SamplingConfig


class DrawParameters(NamedTuple):
    """How a code is drawn from logits.

    Numbers are tensors and what changes the computation is not: other numbers of the same kind
    need no other compiled step.
    """

    temperature: Float[Tensor, ""]
    top_p: Float[Tensor, ""]
    top_k: int
    nucleus: bool
    greedy: bool

    @classmethod
    def of(cls, config: SamplingConfig, device: torch.device | str = "cpu") -> "DrawParameters":
        """What `config` says of it."""
        return cls(
            torch.tensor(config.temperature or 1.0, device=device),
            torch.tensor(config.top_p, device=device),
            config.top_k,
            config.top_p < 1,
            config.temperature == 0,
        )


def guide(
    conditional: Float[Tensor, "*b k"], negative: Float[Tensor, "*b k"], scale: float | Tensor
) -> Float[Tensor, "*b k"]:
    """Classifier-free guidance on logits (Ho and Salimans 2022, arXiv 2207.12598).

    negative: the logits to move away from, of the null caption or of a negative one.
    """
    return torch.lerp(negative, conditional, scale)


def guidance_at(config: SamplingConfig, index: int, length: int) -> float:
    """The guidance scale for the code at `index` of `length`."""
    if index >= config.guidance_until * length:
        return 1.0
    progress = index / max(length - 1, 1)
    share = {"constant": 1.0, "rising": progress, "falling": 1.0 - progress}
    return 1.0 + (config.guidance - 1.0) * share[config.guidance_schedule]


def guidance_scales(config: SamplingConfig, length: int) -> Float[Tensor, "n"]:
    """The guidance scale of every code of an image of `length`."""
    return torch.tensor([guidance_at(config, index, length) for index in range(length)])


def filter_top_k(logits: Float[Tensor, "b k"], k: int) -> Float[Tensor, "b k"]:
    """Keep the k largest logits of each row; 0 or more than there are keeps all."""
    if k == 0 or k >= logits.shape[-1]:
        return logits
    threshold = logits.topk(k, dim=-1).values[:, -1:]
    return logits.masked_fill(logits < threshold, float("-inf"))


def filter_top_p(
    logits: Float[Tensor, "b k"], p: float | Tensor, most: int = 0
) -> Float[Tensor, "b k"]:
    """Keep the smallest set of likeliest codes whose probability reaches p (nucleus sampling).

    Holtzman et al. 2019, arXiv 1904.09751. The likeliest code always stays, and equal ones at the
    edge stay together. most: finite logits of a row, where a filter before left few; 0 for all.
    """
    ranked = logits.topk(min(most or logits.shape[-1], logits.shape[-1]), dim=-1).values
    probability = ranked.softmax(dim=-1)
    before = probability.cumsum(dim=-1) - probability
    last = (before < p).sum(dim=-1, keepdim=True).clamp(min=1) - 1
    return logits.masked_fill(logits < ranked.gather(1, last), float("-inf"))


def draw(
    logits: Float[Tensor, "b k"], uniform: Float[Tensor, "b"], parameters: DrawParameters
) -> Int[Tensor, "b"]:
    """One code per row: the filtered distribution's quantile at `uniform` in [0, 1)."""
    if parameters.greedy:
        return logits.argmax(dim=-1)
    logits = filter_top_k(logits / parameters.temperature, parameters.top_k)
    if parameters.nucleus:
        logits = filter_top_p(logits, parameters.top_p, most=parameters.top_k)
    cumulative = logits.softmax(dim=-1).cumsum(dim=-1)
    # Scaled by the sum so that rounding can never point past the last possible code.
    threshold = uniform[:, None] * cumulative[:, -1:]
    return (cumulative <= threshold).sum(dim=-1).clamp(max=logits.shape[-1] - 1)


def uniform_noise(seeds: Sequence[int], length: int, draws: int = 1) -> Float[Tensor, "b n draws"]:
    """Numbers in [0, 1) for each of `length` codes of each image, from its own seed alone."""
    rows = [seeded(seed).random((length, draws), np.float32) for seed in seeds]
    return torch.from_numpy(np.stack(rows))


def seeded(seed: int) -> np.random.Generator:
    """The random numbers of an image or a caption; every bit of the seed changes all of them.

    Not torch's generator: on a CPU it reads only the low 32 bits of a seed.
    """
    return np.random.default_rng(int(seed) % SEEDS)

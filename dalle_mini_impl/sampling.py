"""Sampling as pure functions: guide, filter, draw, and the loop that decodes a picture's codes.

Nothing here knows a model. Randomness comes as numbers: one uniform number per code, made from
each picture's own seed, so that a picture does not depend on its neighbours in the batch.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from dalle_mini_impl.config import Config

Step = Callable[[Tensor, Tensor, int], Tensor]


class SamplingConfig(Config):
    """How pictures are drawn from the model."""

    num_images: int = Field(4, gt=0)
    """Pictures to keep for each caption, best first."""
    candidates: int = Field(16, gt=0)
    """Pictures to draw for each caption before ranking."""
    guidance: float = Field(2.0, ge=0)
    """Guidance scale: 1 samples the model as it is, more follows the caption more closely."""
    guidance_schedule: Literal["constant", "rising", "falling"] = "constant"
    """Guidance over the codes of a picture: constant, or moving linearly from or to 1."""
    guidance_until: float = Field(1.0, ge=0, le=1)
    """Share of a picture's codes, from the first, that guidance acts on."""
    temperature: float = Field(1.0, ge=0)
    """Divides the logits; 0 always takes the likeliest code."""
    top_k: int = Field(0, ge=0)
    """Draw from the k likeliest codes only; 0 keeps all."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Draw from the likeliest codes that together reach this probability."""
    rank_by: Literal["clip", "likelihood", "both", "none"] = "clip"
    """Which score orders the candidates; both adds their standardised values."""
    batch_size: int = Field(64, gt=0)
    """Candidates decoded at a time, to bound memory."""


def guide(
    conditional: Float[Tensor, "*b k"], null: Float[Tensor, "*b k"], scale: float
) -> Float[Tensor, "*b k"]:
    """Classifier-free guidance on logits (Ho and Salimans 2022, arXiv 2207.12598)."""
    return torch.lerp(null, conditional, scale)


def guidance_at(config: SamplingConfig, index: int, length: int) -> float:
    """The guidance scale for the code at `index` of `length`."""
    if index >= config.guidance_until * length:
        return 1.0
    progress = index / max(length - 1, 1)
    share = {"constant": 1.0, "rising": progress, "falling": 1.0 - progress}
    return 1.0 + (config.guidance - 1.0) * share[config.guidance_schedule]


def filter_top_k(logits: Float[Tensor, "b k"], k: int) -> Float[Tensor, "b k"]:
    """Keep the k largest logits of each row; 0 or more than there are keeps all."""
    if k == 0 or k >= logits.shape[-1]:
        return logits
    threshold = logits.topk(k, dim=-1).values[:, -1:]
    return logits.masked_fill(logits < threshold, float("-inf"))


def filter_top_p(logits: Float[Tensor, "b k"], p: float) -> Float[Tensor, "b k"]:
    """Keep the smallest set of likeliest codes whose probability reaches p (nucleus sampling).

    Holtzman et al. 2019, arXiv 1904.09751. The likeliest code always stays.
    """
    if p >= 1:
        return logits
    probability, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
    before = probability.cumsum(dim=-1) - probability
    dropped = torch.zeros_like(before, dtype=torch.bool).scatter(1, order, before >= p)
    return logits.masked_fill(dropped, float("-inf"))


def draw(
    logits: Float[Tensor, "b k"], uniform: Float[Tensor, "b"], config: SamplingConfig
) -> Int[Tensor, "b"]:
    """One code per row: the filtered distribution's quantile at `uniform` in [0, 1)."""
    if config.temperature == 0:
        return logits.argmax(dim=-1)
    logits = filter_top_k(logits / config.temperature, config.top_k)
    logits = filter_top_p(logits, config.top_p)
    cumulative = logits.softmax(dim=-1).cumsum(dim=-1)
    # Scaled by the sum so that rounding can never point past the last possible code.
    threshold = uniform[:, None] * cumulative[:, -1:]
    return (cumulative <= threshold).sum(dim=-1).clamp(max=logits.shape[-1] - 1)


def uniform_noise(seeds: Sequence[int], length: int) -> Float[Tensor, "b n"]:
    """`length` numbers in [0, 1) for each picture, from its own seed alone."""
    rows = [
        torch.rand(length, generator=torch.Generator().manual_seed(int(seed) % 2**63))
        for seed in seeds
    ]
    return torch.stack(rows)


def decode(
    first: Float[Tensor, "rows k"],
    step: Step,
    noise: Float[Tensor, "b n"],
    grid: int,
    config: SamplingConfig,
    given: Int[Tensor, "b n"] | None = None,
) -> Int[Tensor, "b n"]:
    """Draw a picture's codes one after the other.

    first: logits of the first code. step(code, above, index): feed the code at `index` and return
    the next one's logits; `above` is the code over the next one (the code count in the first row).
    With guidance the logits hold 2b rows, conditional then null, and each code is fed to both.
    given: codes that are kept where they are not negative (completion, inpainting, prompts).
    """
    batch, length = noise.shape
    guided = len(first) == 2 * batch
    if not guided and len(first) != batch:
        raise ValueError(f"{len(first)} rows of logits for {batch} pictures: give b or 2b")
    outside = first.shape[-1]
    codes = torch.full((batch, length), outside, dtype=torch.long, device=first.device)
    logits = first
    for index in range(length):
        combined = logits
        if guided:
            conditional, null = logits.chunk(2)
            combined = guide(conditional, null, guidance_at(config, index, length))
        code = draw(combined, noise[:, index], config)
        if given is not None:
            code = torch.where(given[:, index] >= 0, given[:, index], code)
        codes[:, index] = code
        if index + 1 == length:
            break
        upper = index + 1 - grid
        above = codes[:, upper] if upper >= 0 else torch.full_like(code, outside)
        if guided:
            code, above = code.repeat(2), above.repeat(2)
        logits = step(code, above, index)
    return codes


def log_likelihood(logits: Float[Tensor, "b n k"], codes: Int[Tensor, "b n"]) -> Float[Tensor, "b"]:
    """log p of each row of codes, in nats, summed over its positions."""
    return -F.cross_entropy(logits.transpose(1, 2), codes, reduction="none").sum(dim=1)

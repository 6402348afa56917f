"""Quantizers: how a map of features becomes a map of integer codes, and codes become latents.

Each has `code_count`, the channels it takes (`features`) and gives (`latents`), the gain that its
features start with (`feature_gain`), a `forward` for training, `codes(features)`, `embed(codes)`
and `nearest(latents)`. Codes here are maps `b h w`.
"""

import math
from typing import NamedTuple, cast

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dalle_mini_impl.kernels.eager_only import eager_only
from dalle_mini_impl.kernels.full_precision import full_precision


class Quantized(NamedTuple):
    """What a quantizer gives while training: latents for the decoder and the hard codes."""

    latents: Float[Tensor, "b d h w"]
    codes: Int[Tensor, "b h w"]


class GumbelQuantizer(nn.Module):
    """A codebook behind a categorical per position, relaxed by Gumbel-softmax (1611.01144).

    It takes `code_count` logits per position. Training mixes codebook vectors by
    softmax((logits + Gumbel noise) / τ), without straight-through; afterwards the argmax is taken.

    dead_code_threshold: in training, a code that is the argmax less often than this share of even
    use has its logit raised everywhere, step by step, until it is chosen: the loss-free
    balancing of experts (Wang et al. 2024, arXiv 2408.15664), for unused codes only. 0 is the
    paper's quantizer, of whose codes short runs use a third.
    """

    usage: Tensor
    offsets: Tensor

    def __init__(self, code_count: int, latents: int, dead_code_threshold: float = 0.0):
        super().__init__()
        self.code_count = code_count
        self.features = code_count
        self.latents = latents
        self.dead_code_threshold = dead_code_threshold
        # Logits that start below the standard deviation of the noise (1.28) carry no information,
        # and training then settles on a posterior that ignores the image.
        self.feature_gain = 10.0
        self.codebook = nn.Embedding(code_count, latents)
        self.register_buffer("usage", torch.ones(code_count))
        self.register_buffer("offsets", torch.zeros(code_count))

    def forward(
        self,
        features: Float[Tensor, "b k h w"],
        noise: Float[Tensor, "b k h w"],
        temperature: Float[Tensor, ""],
    ) -> Quantized:
        """Relaxed latents; `noise` is `gumbel_noise(...)` or zeros, `temperature` is τ > 0."""
        logits = self.logits(features)
        shares = ((logits + noise) / temperature).softmax(dim=1)
        latents = torch.einsum("bkhw,kd->bdhw", shares, self.codebook.weight)
        codes = logits.argmax(dim=1)
        if self.training and self.dead_code_threshold > 0:
            self.observe(codes)
        return Quantized(latents, codes)

    def logits(self, features: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
        """Logits at each position: the features, raised for codes that were hardly used."""
        return features + _per_channel(self.offsets)

    def codes(self, features: Float[Tensor, "b k h w"]) -> Int[Tensor, "b h w"]:
        return self.logits(features).argmax(dim=1)

    def embed(self, codes: Int[Tensor, "b h w"]) -> Float[Tensor, "b d h w"]:
        return self.codebook(codes).movedim(-1, 1)

    def nearest(self, latents: Float[Tensor, "b d h w"]) -> Quantized:
        """The codebook vectors closest to `latents`, with gradients passed straight through."""
        codes = nearest_rows(latents, self.codebook.weight)
        return Quantized(straight_through(latents, self.embed(codes)), codes)

    @eager_only
    @torch.no_grad()
    def observe(self, codes: Int[Tensor, "b h w"], decay: float = 0.98, rate: float = 0.1) -> None:
        """Count the use of codes, over all processes, and raise those hardly used."""
        counts = torch.bincount(codes.flatten(), minlength=self.code_count).float()
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(counts)
        self.usage.lerp_(counts / counts.sum() * self.code_count, 1 - decay)
        self.offsets.add_(rate * (1 - self.usage / self.dead_code_threshold).clamp_min(0))


class FiniteScalarQuantizer(nn.Module):
    """Each channel rounded to one of a few levels: no codebook to learn or to collapse.

    Mentzer et al. 2023, arXiv 2309.15505. `levels` gives the levels per channel and their
    product the code count. Latents lie in [-1, 1], in steps of 1 / (levels // 2).
    """

    codebook: Tensor
    levels: Tensor

    def __init__(self, levels: tuple[int, ...]):
        super().__init__()
        self.code_count = math.prod(levels)
        self.features = self.latents = len(levels)
        self.feature_gain = 1.0
        # Follow from the configuration, so they are not saved with the weights.
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        digits = torch.cartesian_prod(*(torch.arange(n) for n in reversed(levels)))
        digits = digits.reshape(self.code_count, len(levels)).flip(1)  # first channel fastest
        half = self.levels // 2
        self.register_buffer("codebook", (digits - half) / half, persistent=False)

    def forward(self, features: Float[Tensor, "b d h w"]) -> Quantized:
        return self.nearest(self.bound(features))

    def bound(self, features: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        """Squash into the range of the levels, before rounding; zero stays zero.

        An even number of levels has no middle: its range is moved by half a step so that
        rounding to integers still yields every level, and the tanh is moved back to keep 0 at 0
        (but for two levels, whose zero is an end of the range).
        """
        levels = _per_channel(self.levels)
        # Slightly inside, so that saturated features cannot round to a level that is not there.
        reach = (levels - 1) * (1 - 1e-3) / 2
        offset = (levels % 2 == 0) * 0.5
        shift = torch.atanh(torch.where(levels > 2, offset / reach, 0.0))
        return (torch.tanh(features + shift) * reach - offset) / (levels // 2)

    def codes(self, features: Float[Tensor, "b d h w"]) -> Int[Tensor, "b h w"]:
        return self.nearest(self.bound(features)).codes

    def embed(self, codes: Int[Tensor, "b h w"]) -> Float[Tensor, "b d h w"]:
        return F.embedding(codes, self.codebook).movedim(-1, 1)

    def nearest(self, latents: Float[Tensor, "b d h w"]) -> Quantized:
        """The levels closest to `latents`, with gradients passed straight through."""
        half = _per_channel(self.levels // 2)
        top = _per_channel(self.levels - 1)
        digits = torch.minimum((latents * half).round() + half, top).clamp_min(0)
        places = _per_channel(self.levels.cumprod(0) // self.levels)
        codes = (digits.long() * places).sum(dim=1)
        return Quantized(straight_through(latents, (digits - half) / half), codes)


class ProductQuantizer(nn.Module):
    """Groups of channels, each quantized by itself: a code is a number with one digit per group.

    `factors` are the code counts of the groups, the least significant digit first.
    """

    def __init__(self, levels: list[tuple[int, ...]]):
        super().__init__()
        parts = [FiniteScalarQuantizer(of_group) for of_group in levels]
        self.parts = nn.ModuleList(parts)
        self.factors = tuple(part.code_count for part in parts)
        self.code_count = math.prod(self.factors)
        self.channels = [part.features for part in parts]
        self.features = self.latents = sum(self.channels)
        self.feature_gain = 1.0

    def forward(self, features: Float[Tensor, "b d h w"]) -> Quantized:
        return self._join([part(x) for part, x in self._each(features)])

    def codes(self, features: Float[Tensor, "b d h w"]) -> Int[Tensor, "b h w"]:
        return self.forward(features).codes

    def embed(self, codes: Int[Tensor, "b h w"]) -> Float[Tensor, "b d h w"]:
        latents, rest = [], codes
        *parts, last = cast(list[FiniteScalarQuantizer], list(self.parts))
        for part in parts:
            latents.append(part.embed(rest % part.code_count))
            rest = rest // part.code_count
        # No remainder here, so that codes beyond the last one raise an error.
        return torch.cat((*latents, last.embed(rest)), dim=1)

    def nearest(self, latents: Float[Tensor, "b d h w"]) -> Quantized:
        """The levels closest to `latents`, with gradients passed straight through."""
        return self._join([part.nearest(x) for part, x in self._each(latents)])

    def _each(
        self, maps: Float[Tensor, "b d h w"]
    ) -> list[tuple[FiniteScalarQuantizer, Float[Tensor, "b _ h w"]]]:
        parts = cast(list[FiniteScalarQuantizer], list(self.parts))
        return list(zip(parts, maps.split(self.channels, dim=1), strict=True))

    def _join(self, quantized: list[Quantized]) -> Quantized:
        codes, unit = torch.zeros_like(quantized[0].codes), 1
        for part, count in zip(quantized, self.factors, strict=True):
            codes, unit = codes + part.codes * unit, unit * count
        return Quantized(torch.cat([part.latents for part in quantized], dim=1), codes)


def gumbel_noise(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard Gumbel noise, -log(-log u), in the shape of `like`."""
    # An exponential draw is -log u exactly, without the log of a zero.
    return -torch.empty_like(like).exponential_(generator=generator).log()


def straight_through(
    latents: Float[Tensor, "b d h w"], quantized: Float[Tensor, "b d h w"]
) -> Float[Tensor, "b d h w"]:
    """The value of `quantized` with the gradient of `latents`."""
    return latents + (quantized - latents).detach()


def nearest_rows(
    latents: Float[Tensor, "b d h w"], rows: Float[Tensor, "k d"]
) -> Int[Tensor, "b h w"]:
    """Index of the row with the smallest Euclidean distance to each latent."""
    with torch.no_grad(), full_precision(latents.device):
        points = latents.movedim(1, -1)
        # |p|² is the same for every row.
        distances = rows.square().sum(dim=1) - 2 * points @ rows.T
        return distances.argmin(dim=-1)


def _per_channel(values: Tensor) -> Tensor:
    return values.reshape(1, -1, 1, 1)

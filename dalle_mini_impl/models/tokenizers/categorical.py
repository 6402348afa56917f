"""The discrete VAE's quantizer: a categorical posterior over a codebook at every position."""

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dalle_mini_impl.config import Config
from dalle_mini_impl.models.tokenizers.quantizer import (
    CodeCounts,
    Nearest,
    Quantized,
    Relaxation,
    nearest_rows,
    straight_through,
)

LARGEST_SCALE = 200.0
"""Bound of the learned scale of distance logits, so that the posterior keeps a gradient."""


class CategoricalConfig(Config):
    """A categorical posterior over a codebook, as in DALL·E's dVAE (arXiv 2102.12092)."""

    type: Literal["categorical"] = "categorical"
    """A distribution over codes at each position, relaxed in training; the likeliest afterwards."""
    codes: CodeCounts = (512,)
    """Codes of each factor."""
    width: int = Field(4, gt=0)
    """Channels of a codebook vector; with distances few are best, with free logits 64."""
    logits: Literal["distance", "free"] = "distance"
    """From a feature's distance to each code, or one output of the encoder per code (the paper)."""
    relaxation: Literal["soft", "hard", "none"] = "soft"
    """Mix codes by Gumbel-softmax (the paper), pass one draw straight through, or the argmax."""
    temperature: float = Field(1.0, gt=0)
    """τ of the relaxation at the start."""
    final_temperature: float = Field(1 / 16, gt=0)
    """τ at the end of its annealing."""
    annealing: float = Field(0.8, gt=0, le=1)
    """Share of the run in which τ falls to its final value."""
    noise: float | None = Field(0.6, gt=0, le=1)
    """Share of the run in which the Gumbel noise fades to nothing; null keeps it (the paper)."""
    kl_weight: float = Field(0.0, ge=0)
    """β as the paper counts it (6.6); divided by 3·downsampling² for losses averaged per value."""
    kl_warmup: float = Field(0.15, gt=0, le=1)
    """Share of the run in which β rises from zero."""
    entropy_weight: float = Field(0.001, ge=0)
    """Weight of ln K minus the entropy of the batch's mean posterior; keeps all codes in use."""

    @property
    def factors(self) -> tuple[int, ...]:
        """Codes of each factor."""
        return self.codes


class CategoricalQuantizer(nn.Module, ABC):
    """A codebook behind a categorical posterior, relaxed in training (arXiv 1611.01144)."""

    feature_gain: float

    def __init__(self, code_count: int, features: int, config: CategoricalConfig):
        super().__init__()
        self.code_count = code_count
        self.features, self.latents = features, config.width
        self.config = config
        self.codebook = nn.Embedding(code_count, config.width)

    @abstractmethod
    def logits(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w k"]:
        """Logits of the posterior at each position."""

    @abstractmethod
    def rows(self) -> Float[Tensor, "k d"]:
        """The latents of all codes."""

    def forward(self, features: Float[Tensor, "b c h w"], relaxation: Relaxation) -> Quantized:
        """Relaxed latents; losses `kl` and `entropy_gap` of the posterior, in nats, if weighed.

        The losses do not depend on the relaxation: the temperature is not the posterior's.
        """
        logits = self.logits(features)
        losses = {}
        if self.config.kl_weight > 0:
            losses["kl"] = kl_to_uniform(logits)
        if self.config.entropy_weight > 0:
            # A quarter of the positions says enough of the mean.
            losses["entropy_gap"] = entropy_gap(logits[:, ::2, ::2])
        noisy = logits
        if self.config.relaxation != "none":
            noisy = logits + relaxation.noise
        shares = (noisy / relaxation.temperature).softmax(dim=-1)
        rows = self.rows()
        latents = (shares @ rows).movedim(-1, 1)
        if self.config.relaxation != "soft":
            drawn = F.embedding(noisy.argmax(dim=-1), rows).movedim(-1, 1)
            latents = straight_through(latents, drawn)
        return Quantized(latents, losses)

    def codes(self, features: Float[Tensor, "b c h w"]) -> Int[Tensor, "b h w"]:
        return self.logits(features).argmax(dim=-1)

    def embed(self, codes: Int[Tensor, "b h w"]) -> Float[Tensor, "b d h w"]:
        return F.embedding(codes, self.rows()).movedim(-1, 1)

    def nearest(self, latents: Float[Tensor, "b d h w"]) -> Nearest:
        """The codebook vectors closest to `latents`, with gradients passed straight through."""
        codes = nearest_rows(latents, self.rows())
        return Nearest(straight_through(latents, self.embed(codes)), codes)


class FreeCategorical(CategoricalQuantizer):
    """Logits are the encoder's outputs, one per code, as in DALL·E (arXiv 2102.12092, A.1)."""

    # Logits that start below the standard deviation of the noise (1.28) carry no information,
    # and training then settles on a posterior that ignores the image.
    feature_gain = 10.0

    def __init__(self, code_count: int, config: CategoricalConfig):
        super().__init__(code_count, code_count, config)

    def logits(self, features: Float[Tensor, "b k h w"]) -> Float[Tensor, "b h w k"]:
        return features.movedim(1, -1)

    def rows(self) -> Float[Tensor, "k d"]:
        return self.codebook.weight


class DistanceCategorical(CategoricalQuantizer):
    """Logits are -s·‖z - e‖² of unit features z and unit codes e, with a learned scale s.

    A feature near a code makes it likely, so encoder and codebook cannot disagree about what a code
    means. Such a posterior is SQ-VAE's (Takida et al. 2022, arXiv 2205.07547). Few channels keep
    the codes close to each other, so that a feature can move from one to the next.
    """

    feature_gain = 1.0

    def __init__(self, code_count: int, config: CategoricalConfig):
        super().__init__(code_count, config.width, config)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def logits(self, features: Float[Tensor, "b d h w"]) -> Float[Tensor, "b h w k"]:
        points = F.normalize(features.movedim(1, -1), dim=-1)
        # Of -s·(1 - 2⟨z, e⟩ + 1), what differs between codes.
        scale = 2 * self.log_scale.exp().clamp(max=LARGEST_SCALE)
        return (scale * points) @ self.rows().T

    def rows(self) -> Float[Tensor, "k d"]:
        return F.normalize(self.codebook.weight, dim=-1)


def build_categorical(code_count: int, config: CategoricalConfig) -> CategoricalQuantizer:
    """The quantizer of one factor."""
    if config.logits == "free":
        return FreeCategorical(code_count, config)
    return DistanceCategorical(code_count, config)


def kl_to_uniform(logits: Float[Tensor, "b h w k"]) -> Float[Tensor, ""]:
    """KL of the posterior from the uniform prior, in nats, averaged over all positions."""
    posterior = logits.log_softmax(dim=-1)
    kl = (posterior.exp() * posterior).sum(dim=-1) + math.log(logits.shape[-1])
    return kl.mean()


def entropy_gap(logits: Float[Tensor, "b h w k"]) -> Float[Tensor, ""]:
    """ln K minus the entropy of the mean posterior over all positions, in nats.

    Zero where all codes are used alike, however sure each position is of its own.
    """
    mean = logits.softmax(dim=-1).mean(dim=(0, 1, 2))
    return math.log(len(mean)) + (mean * mean.clamp_min(1e-9).log()).sum()


def gumbel_noise(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard Gumbel noise, -log(-log u), in the shape of `like`."""
    # On a CPU torch draws uniform numbers thirteen times as fast as exponential ones.
    uniform = torch.empty_like(like).uniform_(generator=generator).clamp_min_(1e-30)
    return -(-uniform.log()).log()

"""The discrete VAE's quantizer: a categorical posterior over a codebook at every position."""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dalle_mini_impl.kernels.full_precision import full_precision
from dalle_mini_impl.models.tokenizers.quantizer import (
    Nearest,
    Quantized,
    Relaxation,
    nearest_rows,
    straight_through,
)
from dalle_mini_impl.models.tokenizers.quantizer_configs import CategoricalConfig

LARGEST_SCALE = 200.0
"""Bound of the learned scale of distance logits, so that the posterior keeps a gradient."""


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

    def forward(
        self, features: Float[Tensor, "b c h w"], relaxation: Relaxation | None = None
    ) -> Quantized:
        """Relaxed latents, with the losses of `posterior_losses`.

        relaxation: what `soft` and `hard` need. The losses do not depend on it: the temperature is
        not the posterior's.
        """
        assert relaxation is not None
        with full_precision(features.device):
            noisy = self.logits(features) + relaxation.noise
            shares = (noisy / relaxation.temperature).softmax(dim=-1)
            rows = self.rows()
            latents = (shares @ rows).movedim(-1, 1)
            if self.config.relaxation == "hard":
                drawn = F.embedding(noisy.argmax(dim=-1), rows).movedim(-1, 1)
                latents = straight_through(latents, drawn)
        return Quantized(latents, self.posterior_losses(features))

    def posterior_losses(self, features: Float[Tensor, "b c h w"]) -> dict[str, Tensor]:
        """`kl` and `entropy_gap` of the posterior, in nats per position, if they are weighed."""
        losses = {}
        with full_precision(features.device):
            if self.config.kl_weight > 0:
                losses["kl"] = kl_to_uniform(self.logits(features))
            if self.config.entropy_weight > 0:
                # A quarter of the positions says enough of the mean.
                losses["entropy_gap"] = entropy_gap(self.logits(features[:, :, ::2, ::2]))
        return losses

    def codes(self, features: Float[Tensor, "b c h w"]) -> Int[Tensor, "b h w"]:
        with full_precision(features.device):
            return self.logits(features).argmax(dim=-1)

    def sample(
        self, features: Float[Tensor, "b c h w"], temperature: float, generator: torch.Generator
    ) -> Int[Tensor, "b h w"]:
        """Codes drawn from the posterior, by the Gumbel-max trick."""
        with full_precision(features.device):
            logits = self.logits(features)
            return (logits + temperature * gumbel_noise(logits, generator)).argmax(dim=-1)

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
    """Logits are -s·‖z - e‖² of unit features z and unit codes e, with a scale s.

    A feature near a code makes it likely, so encoder and codebook cannot disagree about what a code
    means. Such a posterior is SQ-VAE's (Takida et al. 2022, arXiv 2205.07547). Few channels keep
    the codes close to each other, so that a feature can move from one to the next.
    """

    feature_gain = 1.0

    def __init__(self, code_count: int, config: CategoricalConfig):
        super().__init__(code_count, config.width, config)
        # With straight-through no reconstruction depends on the scale, and a posterior that may
        # become flat would close the gap of its entropy without using more codes.
        learned = config.relaxation != "straight-through"
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)), requires_grad=learned)

    def forward(
        self, features: Float[Tensor, "b d h w"], relaxation: Relaxation | None = None
    ) -> Quantized:
        """Without a relaxation the likeliest code, whose gradient also reaches its feature."""
        if relaxation is not None:
            return super().forward(features, relaxation)
        points = F.normalize(features, dim=1)
        embedded = self.embed(nearest_rows(points, self.rows()))
        losses = self.posterior_losses(features)
        if self.config.commitment > 0:
            losses["commitment"] = (points - embedded.detach()).square().sum(dim=1).mean()
        return Quantized(embedded + points - points.detach(), losses)

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

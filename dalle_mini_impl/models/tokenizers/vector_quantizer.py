"""The vector quantizer of VQGAN: low-dimensional unit codes, learned by EMA or by gradient.

Features and codes are compared on the unit sphere (Yu et al. 2021, arXiv 2110.04627): a code cannot
die by being short. In training, codes start from the data and those hardly used are moved back to
it; all statistics are summed over processes.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dalle_mini_impl.kernels.eager_only import eager_only
from dalle_mini_impl.models.tokenizers.kmeans import assign, broadcast, kmeans, random_rows
from dalle_mini_impl.models.tokenizers.quantizer import (
    Nearest,
    Quantized,
    nearest_rows,
    straight_through,
)
from dalle_mini_impl.models.tokenizers.quantizer_configs import (
    Gradients,
    Initialization,
    VectorConfig,
)


def rotate(
    features: Float[Tensor, "b d h w"], codes: Float[Tensor, "b d h w"]
) -> Float[Tensor, "b d h w"]:
    """`codes`, with the gradient rotated back to the features.

    Fifty et al. 2024, arXiv 2410.06424, for unit vectors. Unlike with straight-through, a feature's
    gradient depends on where it lies relative to its code.
    """
    source, target = features.detach(), codes.detach()
    middle = F.normalize(source + target, dim=1)
    along = (features * middle).sum(dim=1, keepdim=True)
    onto = (features * source).sum(dim=1, keepdim=True)
    return features - 2 * along * middle + 2 * onto * target


PASSING: dict[Gradients, Callable[[Tensor, Tensor], Tensor]] = {
    "straight-through": straight_through,
    "rotation": rotate,
}


class VectorQuantizer(nn.Module):
    """Unit features to the nearest of `code_count` unit codes; the codebook learns by gradient.

    dead_code_threshold: a code used less than this share of the even use is moved to a feature at
    hand; with 0 it is not. decay: memory of the running statistics, per training pass.
    """

    feature_gain = 1.0
    usage: Tensor
    started: Tensor

    def __init__(
        self,
        code_count: int,
        width: int,
        gradients: Gradients = "rotation",
        initialization: Initialization = "kmeans",
        dead_code_threshold: float = 0.03,
        decay: float = 0.99,
    ):
        super().__init__()
        self.code_count = code_count
        self.features = self.latents = width
        self.passing = PASSING[gradients]
        self.initialization = initialization
        self.dead_code_threshold, self.decay = dead_code_threshold, decay
        self._make_codebook(F.normalize(torch.randn(code_count, width), dim=1))
        self.register_buffer("usage", torch.ones(code_count))
        self.register_buffer("started", torch.tensor(initialization == "random"))

    def _make_codebook(self, codes: Float[Tensor, "k d"]) -> None:
        self.codebook = nn.Embedding.from_pretrained(codes, freeze=False)

    def _vectors(self) -> Tensor:
        """The tensor that holds the codes."""
        return self.codebook.weight

    def rows(self) -> Float[Tensor, "k d"]:
        """All codes, of unit length."""
        return F.normalize(self._vectors(), dim=1)

    def forward(self, features: Float[Tensor, "b d h w"]) -> Quantized:
        """Nearest codes; while training also the statistics, before the codes are looked up.

        Losses: `commitment`, ‖z - sg[e]‖², moves the encoder; `codebook`, ‖sg[z] - e‖², the codes.
        """
        features = F.normalize(features, dim=1)
        if self.training:
            self.observe(features.detach().movedim(1, -1).flatten(0, -2))
        codes = nearest_rows(features, self.rows())
        embedded = self.embed(codes)
        return Quantized(self.passing(features, embedded), self._losses(features, embedded))

    def codes(self, features: Float[Tensor, "b d h w"]) -> Int[Tensor, "b h w"]:
        return nearest_rows(F.normalize(features, dim=1), self.rows())

    def embed(self, codes: Int[Tensor, "b h w"]) -> Float[Tensor, "b d h w"]:
        return F.embedding(codes, self.rows()).movedim(-1, 1)

    def nearest(self, latents: Float[Tensor, "b d h w"]) -> Nearest:
        """The codes closest to `latents` in direction, with the gradient straight through."""
        codes = self.codes(latents)
        return Nearest(straight_through(latents, self.embed(codes)), codes)

    def _losses(
        self, features: Float[Tensor, "b d h w"], embedded: Float[Tensor, "b d h w"]
    ) -> dict[str, Tensor]:
        return {
            "commitment": (features - embedded.detach()).square().sum(dim=1).mean(),
            "codebook": (features.detach() - embedded).square().sum(dim=1).mean(),
        }

    @eager_only
    @torch.no_grad()
    def observe(self, points: Float[Tensor, "n d"]) -> None:
        """Start the codes from the data, count their use and restart those hardly used."""
        if not self.started:
            start = broadcast(random_rows(points, self.code_count))
            if self.initialization == "kmeans":
                start = kmeans(points, start)
            self._replace(torch.ones_like(self.usage, dtype=torch.bool), start)
            self.started.fill_(True)
        counts, sums = assign(points, self.rows())
        self.usage.lerp_(counts / counts.sum() * self.code_count, 1 - self.decay)
        self._learn(counts, sums)
        if self.dead_code_threshold > 0:
            dead = self.usage < self.dead_code_threshold
            self._replace(dead, broadcast(random_rows(points, self.code_count)))

    def _learn(self, counts: Float[Tensor, "k"], sums: Float[Tensor, "k d"]) -> None:
        """Nothing: the optimizer moves the codes."""

    def _replace(self, dead: Tensor, points: Float[Tensor, "k d"]) -> None:
        self._vectors()[dead] = points[dead]
        self.usage[dead] = 1.0


class EmaVectorQuantizer(VectorQuantizer):
    """Codes are running means of the features that chose them (van den Oord 2017, appendix A.1)."""

    vectors: Tensor
    sizes: Tensor
    sums: Tensor

    def _make_codebook(self, codes: Float[Tensor, "k d"]) -> None:
        self.register_buffer("vectors", codes)
        self.register_buffer("sizes", torch.ones(self.code_count))
        self.register_buffer("sums", codes.clone())

    def _vectors(self) -> Tensor:
        return self.vectors

    def _losses(
        self, features: Float[Tensor, "b d h w"], embedded: Float[Tensor, "b d h w"]
    ) -> dict[str, Tensor]:
        # The codes move without a loss.
        return {"commitment": (features - embedded.detach()).square().sum(dim=1).mean()}

    def _learn(self, counts: Float[Tensor, "k"], sums: Float[Tensor, "k d"]) -> None:
        self.sizes.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        moved = F.normalize(self.sums, dim=1)
        self.vectors.copy_(torch.where(self.sizes[:, None] > 1e-3, moved, self.vectors))

    def _replace(self, dead: Tensor, points: Float[Tensor, "k d"]) -> None:
        super()._replace(dead, points)
        self.sizes[dead] = 1.0
        self.sums[dead] = points[dead]


def build_vector(code_count: int, config: VectorConfig) -> VectorQuantizer:
    """The quantizer of one factor."""
    kind = EmaVectorQuantizer if config.codebook == "ema" else VectorQuantizer
    return kind(
        code_count,
        config.width,
        config.gradients,
        config.initialization,
        config.dead_code_threshold,
    )

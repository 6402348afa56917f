"""Distances and rates between arrays: images, features, similarities in, numbers out.

torchmetrics' implementations where it has them (the optional extra `evaluation`).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_calibration_error,
)
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance

BINS = 15
"""Intervals of confidence that calibration is measured in."""

ROWS = 512
"""Rows of a distance matrix computed at a time."""


class GivenFeatures(nn.Module):
    """Given to torchmetrics as its feature network: returns the given features."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return features


def frechet_distance(real: Float[Tensor, "n d"], generated: Float[Tensor, "m d"]) -> float:
    """Fréchet distance of the Gaussians fitted to two sets of features (arXiv 1706.08500).

    0 for equal sets. It shrinks as sets grow: compare only between sets of equal sizes.
    Raises ValueError for fewer than two rows.
    """
    if min(len(real), len(generated)) < 2:
        raise ValueError(
            f"{len(real)} and {len(generated)} rows of features: a covariance needs two at least"
        )
    metric = FrechetInceptionDistance(GivenFeatures(real.shape[1])).set_dtype(torch.float64)
    metric.update(real.double(), real=True)
    metric.update(generated.double(), real=False)
    return max(0.0, float(metric.compute()))


def precision_recall(
    real: Float[Tensor, "n d"], generated: Float[Tensor, "m d"], k: int = 3
) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991), in [0, 1].

    Precision: generated features within the k-th neighbor's distance of a real one. Recall: the
    reverse. Raises ValueError unless both sets have more than k rows.
    """
    if min(len(real), len(generated)) <= k:
        raise ValueError(
            f"{len(real)} real and {len(generated)} generated rows: k = {k} neighbors need more"
        )
    return _covered(generated, real, k), _covered(real, generated, k)


def _covered(points: Float[Tensor, "n d"], support: Float[Tensor, "m d"], k: int) -> float:
    """Share of points within the k-th neighbor's distance of any of the support."""
    # The nearest of a set to its own member is itself, so the k-th neighbor is number k + 1.
    radii = torch.cat(
        [torch.cdist(part, support).kthvalue(k + 1, dim=1).values for part in support.split(ROWS)]
    )
    inside = [(torch.cdist(part, support) <= radii).any(1) for part in points.split(ROWS)]
    return float(torch.cat(inside).float().mean())


def told_apart(real: Float[Tensor, "n d"], generated: Float[Tensor, "n d"]) -> float:
    """How often a feature's nearest other one is of its own set (arXiv 1610.06545, 1 neighbor).

    About 0.5 where the sets are alike, 1 where they are apart, as also fog is from images, and less
    than 0.5 where each feature has its counterpart in the other set.
    """
    both = torch.cat((real, generated))
    generated_from = torch.arange(len(both)) >= len(real)
    right = []
    for rows in torch.arange(len(both)).split(ROWS):
        distances = torch.cdist(both[rows], both)
        distances[torch.arange(len(rows)), rows] = float("inf")
        neighbor = distances.argmin(dim=1)
        right.append(generated_from[neighbor] == generated_from[rows])
    return float(torch.cat(right).float().mean())


def ssim(
    images: Float[Tensor, "b 3 h w"], references: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, "b"]:
    """Structural similarity of each image, at most 1 (Wang et al. 2004; Gaussian of 1.5)."""
    values = structural_similarity_index_measure(
        images, references, data_range=1.0, reduction="none"
    )
    assert isinstance(values, Tensor)
    return values.reshape(-1)


def recall_at(
    similarity: Float[Tensor, "q c"], relevant: Bool[Tensor, "q c"], ks: Sequence[int]
) -> dict[int, float]:
    """Share of queries with a relevant candidate among the k most similar, for each k.

    Ties count against the query: a model that gives everything one score finds nothing.
    """
    best = similarity.masked_fill(~relevant, float("-inf")).amax(dim=1, keepdim=True)
    ahead = ((similarity >= best) & ~relevant).sum(dim=1)
    return {k: float((ahead < k).float().mean()) for k in ks}


def calibration_error(probabilities: Float[Tensor, "n k"], target: Int[Tensor, "n"]) -> float:
    """Expected calibration error (Naeini et al. 2015): confidence less accuracy, in [0, 1]."""
    value = multiclass_calibration_error(
        probabilities, target, num_classes=probabilities.shape[1], n_bins=BINS, norm="l1"
    )
    return float(value)


def pair_calibration_error(probabilities: Float[Tensor, "n"], target: Bool[Tensor, "n"]) -> float:
    """The same for independent yes-or-no probabilities, as SigLIP's of a pair."""
    return float(binary_calibration_error(probabilities, target.int(), n_bins=BINS, norm="l1"))

"""Spherical k-means over the features of all processes, for the codebook of a vector quantizer."""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dalle_mini_impl.kernels.full_precision import full_precision


def random_rows(points: Float[Tensor, "n d"], count: int) -> Float[Tensor, "k d"]:
    """`count` of the points at random, none twice while there are enough."""
    order = torch.randperm(len(points), device=points.device)
    return points[order.repeat(-(-count // len(points)))[:count]]


def assign(
    points: Float[Tensor, "n d"], rows: Float[Tensor, "k d"]
) -> tuple[Float[Tensor, "k"], Float[Tensor, "k d"]]:
    """How many points chose each row and their sums, over all processes."""
    with full_precision(points.device):
        chosen = (points @ rows.T).argmax(dim=1)
    counts = torch.bincount(chosen, minlength=len(rows)).to(points.dtype)
    sums = torch.zeros_like(rows).index_add_(0, chosen, points)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(counts)
        dist.all_reduce(sums)
    return counts, sums


def kmeans(
    points: Float[Tensor, "n d"], start: Float[Tensor, "k d"], rounds: int = 10
) -> Float[Tensor, "k d"]:
    """Spherical k-means over all processes' points; rows that nothing chose stay."""
    for _ in range(rounds):
        counts, sums = assign(points, start)
        start = torch.where(counts[:, None] > 0, F.normalize(sums, dim=1), start)
    return start


def broadcast(values: Tensor) -> Tensor:
    """The first process's values, given to every process."""
    if dist.is_available() and dist.is_initialized():
        values = values.contiguous()
        dist.broadcast(values, src=0)
    return values

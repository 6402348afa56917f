"""Cross-entropy behind a linear head, without all of its logits at once where they are many.

32 images of 1,024 codes out of 16,384 have 2 GiB of fp32 logits, and the plain loss keeps them
several times over. The fast one computes them in chunks, and the gradient of each chunk at once, so
that the logits are never needed again (after Liger-Kernel, Hsu et al. 2024, arXiv 2410.10989).
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from dalle_mini_impl.kernels.eager_only import eager_only
from dalle_mini_impl.kernels.force_plain import force_plain

MANY_LOGITS = 2**25
"""Logits above which they are computed in chunks: 128 MiB in fp32."""
CHUNK_LOGITS = 2**22
"""Logits in a chunk."""


def cross_entropy(
    features: Float[Tensor, "*b c"],
    head: Float[Tensor, "k c"],
    targets: Int[Tensor, "*b"],
    label_smoothing: float = 0.0,
) -> Float[Tensor, "*b"]:
    """Cross-entropy of each target under the logits features · headᵀ, in nats.

    label_smoothing: the share of a target that is spread evenly over all classes.
    """
    logits = F.linear(features, head).float().flatten(0, -2)
    losses = F.cross_entropy(
        logits, targets.flatten(), reduction="none", label_smoothing=label_smoothing
    )
    return losses.view_as(targets)


def mean_cross_entropy(
    features: Float[Tensor, "b n c"],
    head: Float[Tensor, "k c"],
    targets: Int[Tensor, "b n"],
    weights: Float[Tensor, "b n"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """The weighted mean of `cross_entropy`.

    weights: of each position; the sum is divided by theirs, or by 1 where they add up to less.
    """
    if weights is None:
        shares = features.new_full(targets.shape, 1 / targets.numel(), dtype=torch.float32)
    else:
        shares = weights / weights.sum().clamp(min=1)
    return weighted_cross_entropy(features, head, targets, shares, label_smoothing)


def weighted_cross_entropy(
    features: Float[Tensor, "b n c"],
    head: Float[Tensor, "k c"],
    targets: Int[Tensor, "b n"],
    shares: Float[Tensor, "b n"],
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """The sum of every position's `cross_entropy` times its share."""
    run = fast if logits_are_many(targets, head) else plain
    return run(features, head, targets, shares, label_smoothing)


def logits_are_many(targets: Int[Tensor, "b n"], head: Float[Tensor, "k c"]) -> bool:
    """Whether the logits are worth computing in chunks."""
    return targets.numel() * len(head) > MANY_LOGITS and not force_plain()


def plain(
    features: Float[Tensor, "b n c"],
    head: Float[Tensor, "k c"],
    targets: Int[Tensor, "b n"],
    shares: Float[Tensor, "b n"],
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """`weighted_cross_entropy` from all logits at once."""
    return (cross_entropy(features, head, targets, label_smoothing) * shares).sum()


@eager_only
def fast(
    features: Float[Tensor, "b n c"],
    head: Float[Tensor, "k c"],
    targets: Int[Tensor, "b n"],
    shares: Float[Tensor, "b n"],
    label_smoothing: float = 0.0,
    chunk_logits: int = CHUNK_LOGITS,
) -> Float[Tensor, ""]:
    """The same sum with `chunk_logits` of the logits at a time; no gradient for `shares`."""
    device = features.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        features, head = features.to(dtype), head.to(dtype)
    rows = max(1, chunk_logits // len(head))
    loss: Tensor = ChunkedCrossEntropy.apply(
        features.flatten(0, 1), head, targets.flatten(), shares.flatten(), label_smoothing, rows
    )
    return loss


class ChunkedCrossEntropy(torch.autograd.Function):
    """Computes both gradients along with the loss, while the logits are at hand."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        head: Tensor,
        targets: Tensor,
        shares: Tensor,
        label_smoothing: float,
        rows: int,
    ) -> Tensor:
        spread = label_smoothing / len(head)
        device = features.device.type
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        to_features = torch.empty_like(features) if wanted else None
        to_head = torch.zeros_like(head, dtype=torch.float32) if wanted else None
        loss = shares.new_zeros(())
        with torch.autocast(device, enabled=False):
            for start in range(0, len(features), rows):
                chunk = slice(start, start + rows)
                logits = (features[chunk] @ head.T).float()
                logs = logits.log_softmax(dim=1)
                chosen = logs.gather(1, targets[chunk, None])[:, 0]
                if label_smoothing:
                    chosen = (1 - label_smoothing) * chosen + spread * logs.sum(dim=1)
                loss = loss - (chosen * shares[chunk]).sum()
                if to_features is None or to_head is None:
                    continue
                slope = logs.exp_()
                if label_smoothing:
                    slope -= spread
                hit = slope.new_full((len(slope), 1), label_smoothing - 1)
                slope.scatter_add_(1, targets[chunk, None], hit)
                slope = slope.mul_(shares[chunk, None]).to(features.dtype)
                torch.mm(slope, head, out=to_features[chunk])
                to_head += slope.T @ features[chunk]
        if to_features is not None and to_head is not None:
            ctx.save_for_backward(to_features, to_head.to(head.dtype))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        to_features, to_head = ctx.saved_tensors
        return to_features * gradients[0], to_head * gradients[0], None, None, None, None

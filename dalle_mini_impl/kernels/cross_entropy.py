"""Cross-entropy behind a linear head, without all of its logits at once where they are many.

32 images of 1024 codes out of 16,384 have 2 GiB of fp32 logits, and the plain loss keeps them
several times over. Here they come in parts, and each part leaves its gradient behind at once, so
the logits are never needed again (after Liger-Kernel, Hsu et al. 2024, arXiv 2410.10989).
"""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

LARGEST_LOGITS = 2**25
"""Logits above which they come in parts: 128 MiB in fp32."""
LOGITS_AT_ONCE = 2**22
"""Logits in a part."""


def mean_cross_entropy(
    features: Float[Tensor, "b n c"],
    head: Float[Tensor, "k c"],
    targets: Int[Tensor, "b n"],
    weights: Float[Tensor, "b n"] | None = None,
) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats of `targets` under the logits features·headᵀ.

    weights: of each position; the sum is divided by theirs, or by 1 where they add up to less.
    """
    positions = rearrange(features, "b n c -> (b n) c")
    wanted = rearrange(targets, "b n -> (b n)")
    if weights is None:
        shares = positions.new_full((len(positions),), 1 / len(positions), dtype=torch.float32)
    else:
        shares = rearrange(weights / weights.sum().clamp(min=1), "b n -> (b n)")
    if len(positions) * len(head) > LARGEST_LOGITS:
        return in_parts(positions, head, wanted, shares)
    return at_once(positions, head, wanted, shares)


def at_once(
    features: Float[Tensor, "p c"],
    head: Float[Tensor, "k c"],
    targets: Int[Tensor, "p"],
    shares: Float[Tensor, "p"],
) -> Float[Tensor, ""]:
    """The sum of every position's cross-entropy times its share, by way of all logits."""
    logits = F.linear(features, head).float()
    return (F.cross_entropy(logits, targets, reduction="none") * shares).sum()


@torch.compiler.disable
def in_parts(
    features: Float[Tensor, "p c"],
    head: Float[Tensor, "k c"],
    targets: Int[Tensor, "p"],
    shares: Float[Tensor, "p"],
    logits_at_once: int = LOGITS_AT_ONCE,
) -> Float[Tensor, ""]:
    """The same sum with `logits_at_once` of the logits at a time; no gradient for `shares`."""
    device = features.device.type
    if torch.is_autocast_enabled(device):
        kind = torch.get_autocast_dtype(device)
        features, head = features.to(kind), head.to(kind)
    rows = max(1, logits_at_once // len(head))
    loss: Tensor = _InParts.apply(features, head, targets, shares, rows)
    return loss


class _InParts(torch.autograd.Function):
    """Computes both gradients along with the loss, as the logits are then at hand."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, head: Tensor, targets: Tensor, shares: Tensor, rows: int
    ) -> Tensor:
        device = features.device.type
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        to_features = torch.empty_like(features) if wanted else None
        to_head = torch.zeros_like(head, dtype=torch.float32) if wanted else None
        loss = shares.new_zeros(())
        with torch.autocast(device, enabled=False):
            for start in range(0, len(features), rows):
                part = slice(start, start + rows)
                logits = (features[part] @ head.T).float()
                logs = logits.log_softmax(dim=1)
                chosen = logs.gather(1, targets[part, None])[:, 0]
                loss = loss - (chosen * shares[part]).sum()
                if to_features is None or to_head is None:
                    continue
                slope = logs.exp_()
                slope.scatter_add_(1, targets[part, None], slope.new_full((len(slope), 1), -1.0))
                slope = slope.mul_(shares[part, None]).to(features.dtype)
                torch.mm(slope, head, out=to_features[part])
                to_head += slope.T @ features[part]
        if to_features is not None and to_head is not None:
            ctx.save_for_backward(to_features, to_head.to(head.dtype))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        to_features, to_head = ctx.saved_tensors
        return to_features * slope, to_head * slope, None, None, None

"""Scaled dot-product attention over whole sequences, as training and prefill need it."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dalle_mini_impl.kernels.force_plain import force_plain

MAX_SCORES = 2**23
"""Most attention scores of a layer for which fp32 training is unfused: 32 MiB a layer are kept."""
MIN_HEAD_WIDTH = 48
"""Narrower heads stay with torch's fused kernel in fp32."""


def attention(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    value: Float[Tensor, "b h k d"],
    mask: Bool[Tensor, "q k"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "b h q d"]:
    """softmax(query · keyᵀ / √d) · value.

    mask: True where a query may see a key; None with `causal` for the lower triangle.
    """
    run = fast if fused_backward_is_slow(query, key, causal) else plain
    return run(query, key, value, mask, causal)


def fused_backward_is_slow(
    query: Float[Tensor, "b h q d"], key: Float[Tensor, "b h k d"], causal: bool
) -> bool:
    """Whether torch's fused kernel trains slower than separate matrix products.

    Measured on CPUs (docs/performance.md): in bf16 always; in fp32 where the step is compiled, the
    attention causal, the heads wide and the scores few.
    """
    if not query.requires_grad or query.device.type != "cpu" or force_plain():
        return False
    if query.dtype == torch.bfloat16:
        return True
    few = query.shape[:-1].numel() * key.shape[2] <= MAX_SCORES
    wide = query.shape[-1] >= MIN_HEAD_WIDTH
    is_fp32 = query.dtype == torch.float32
    return is_fp32 and torch.compiler.is_compiling() and causal and few and wide


def plain(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    value: Float[Tensor, "b h k d"],
    mask: Bool[Tensor, "q k"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "b h q d"]:
    """Torch's fused kernel."""
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)


def fast(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    value: Float[Tensor, "b h k d"],
    mask: Bool[Tensor, "q k"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "b h q d"]:
    """Unfused: a matrix product, a softmax and a matrix product, whose backward pass is faster."""
    scores = Scores.apply(query, key) * query.shape[-1] ** -0.5
    if causal:
        # Added, not filled in: the gradient of an addition costs nothing.
        scores = scores + scores.new_full(scores.shape[-2:], -math.inf).triu(1)
    elif mask is not None:
        hidden = torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -math.inf)
        scores = scores + hidden
    return scores.softmax(dim=-1).to(value.dtype) @ value


class Scores(torch.autograd.Function):
    """query · keyᵀ with the keys' gradient in the keys' own layout; torch's comes transposed."""

    @staticmethod
    def forward(
        ctx: Any, query: Float[Tensor, "b h q d"], key: Float[Tensor, "b h k d"]
    ) -> Float[Tensor, "b h q k"]:
        ctx.save_for_backward(query, key)
        return query @ key.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Float[Tensor, "b h q k"]) -> tuple[Tensor, Tensor]:
        query, key = ctx.saved_tensors
        return gradients[0] @ key, gradients[0].mT @ query

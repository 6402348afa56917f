"""Scaled dot-product attention: of whole streams, and of one position to what is cached."""

import math
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention.flex_attention import BlockMask, flex_attention

LARGEST_SCORES = 2**23
"""Scores up to which a layer in fp32 writes them out and keeps them: at most 32 MiB a layer."""
NARROW = 48
"""Channels of a head below which it does not."""
LONG = 256
"""Positions from which causal attention is cut into twice as many strips."""
WRITTEN_OUT = 2**23
"""Largest keys, in numbers, with which a query's attention in eager bf16 is written out."""


def attend(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    value: Float[Tensor, "b h k d"],
    mask: Bool[Tensor, "q k"] | BlockMask | None,
    causal: bool,
) -> Float[Tensor, "b q c"]:
    """Scaled dot-product attention with its heads joined again; a `BlockMask` is causal itself."""
    if isinstance(mask, BlockMask):
        out = attend_in_blocks(query.device.type)(query, key, value, block_mask=mask)
    elif query.requires_grad and written_out_pays(query, key, causal):
        out = attend_in_parts(query, key, value, mask, causal)
    else:
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
    return rearrange(out, "b h q d -> b q (h d)")


@cache
def attend_in_blocks(device: str) -> Any:
    """FlexAttention; on a GPU compiled, as only then it skips the blocks that see nothing."""
    return flex_attention if device == "cpu" else torch.compile(flex_attention, dynamic=False)


def written_out_pays(
    query: Float[Tensor, "b h q d"], key: Float[Tensor, "b h k d"], causal: bool
) -> bool:
    """Whether `attend_in_parts` trains faster than torch's fused kernel.

    On a CPU it does in bf16, whose fused backward pass took 30 ms where these products take 6 (32 ×
    4 heads, 88 positions of 48 channels), and in fp32 where it is compiled and causal (14 → 11 ms,
    32 × 4 heads, 96 positions of 64 channels), as long as the scores that it keeps are few.
    """
    few = query.shape[:-1].numel() * key.shape[2] <= LARGEST_SCORES
    in_fp32 = torch.compiler.is_compiling() and causal and few and query.shape[-1] >= NARROW
    pays = {torch.bfloat16: True, torch.float32: in_fp32}
    return query.device.type == "cpu" and pays.get(query.dtype, False)


def attend_in_parts(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    value: Float[Tensor, "b h k d"],
    mask: Bool[Tensor, "q k"] | None,
    causal: bool,
) -> Float[Tensor, "b h q d"]:
    """The same attention written out; causal, in strips of queries that leave out later keys."""
    length = query.shape[2]
    strips = (2 if torch.compiler.is_compiling() else 1) * (2 if length >= LONG else 1)
    edges = [length * i // strips for i in range(strips + 1)] if causal else [0, length]
    out = []
    for start, stop in pairwise(edges):
        seen = stop if causal else key.shape[2]
        scores = Scores.apply(query[:, :, start:stop], key[:, :, :seen]) * query.shape[-1] ** -0.5
        if causal:
            later = scores.new_full(scores.shape[-2:], -math.inf).triu(diagonal=1 + start)
            scores = scores + later
        elif mask is not None:
            hidden = torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -math.inf)
            scores = scores + hidden
        out.append(scores.softmax(dim=-1).to(value.dtype) @ value[:, :, :seen])
    return out[0] if len(out) == 1 else torch.cat(out, dim=2)


class Scores(torch.autograd.Function):
    """query · keyᵀ, whose gradient for the keys is as they lie: torch's own comes transposed."""

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


class Seen(NamedTuple):
    """What a single query reads of the cache."""

    positions: slice | Int[Tensor, "k"]
    """The text's first."""
    mask: Bool[Tensor, "1 k"]
    """Which of them it may see; all of the text."""
    text: int
    """How many are the text's."""
    leaders: Int[Tensor, "b"] | None
    """For each stream one that has the same text, if that is known."""


def attend_once(
    query: Float[Tensor, "b h 1 d"],
    keys: Float[Tensor, "b h total d"],
    values: Float[Tensor, "b h total d"],
    seen: Seen,
) -> Float[Tensor, "b 1 c"]:
    """Attention of a single query to cached keys and values.

    Compiled, it is written out so that it fuses into loops; in bf16 on a CPU too, where torch's
    kernel takes up to twice as long for several streams (2 to 64, 40 to 1,090 positions); beyond
    WRITTEN_OUT it is the faster one.
    """
    on_cpu, several = query.device.type == "cpu", query.shape[0] > 1
    if torch.compiler.is_compiling() and on_cpu and several and seen.leaders is not None:
        return attend_by_text(query, keys, values, seen)
    key, value = keys[:, :, seen.positions], values[:, :, seen.positions]
    slow = on_cpu and several and query.dtype == torch.bfloat16 and key.numel() <= WRITTEN_OUT
    if not (torch.compiler.is_compiling() or slow):
        return attend(query, key, value, seen.mask, causal=False)
    scores = (query * key).sum(dim=-1, dtype=torch.float32) * query.shape[-1] ** -0.5
    weights = scores.masked_fill(~seen.mask, -math.inf).softmax(dim=-1).to(value.dtype)
    return rearrange((weights[..., None] * value).sum(dim=2), "b h d -> b 1 (h d)")


def attend_by_text(
    query: Float[Tensor, "b h 1 d"],
    keys: Float[Tensor, "b h total d"],
    values: Float[Tensor, "b h total d"],
    seen: Seen,
) -> Float[Tensor, "b 1 c"]:
    """The same, the text's keys and values read from the streams' leaders.

    Many candidates then read one text, which stays in the nearest cache.
    """
    assert seen.leaders is not None
    if isinstance(seen.positions, slice):
        own: slice | Tensor = slice(seen.text, seen.positions.stop)
    else:
        own = seen.positions[seen.text :]
    text_key, text_value = (x[:, :, : seen.text][seen.leaders] for x in (keys, values))
    key, value = keys[:, :, own], values[:, :, own]
    scale = query.shape[-1] ** -0.5
    to_text = (query * text_key).sum(dim=-1, dtype=torch.float32) * scale
    to_own = (query * key).sum(dim=-1, dtype=torch.float32) * scale
    to_own = to_own.masked_fill(~seen.mask[:, seen.text :], -math.inf)
    # One softmax over both parts.
    most = torch.maximum(to_text.amax(dim=-1, keepdim=True), to_own.amax(dim=-1, keepdim=True))
    to_text, to_own = (to_text - most).exp(), (to_own - most).exp()
    total = to_text.sum(dim=-1, keepdim=True) + to_own.sum(dim=-1, keepdim=True)
    to_text, to_own = ((part / total).to(value.dtype) for part in (to_text, to_own))
    out = (to_text[..., None] * text_value).sum(dim=2) + (to_own[..., None] * value).sum(dim=2)
    return rearrange(out, "b h d -> b 1 (h d)")

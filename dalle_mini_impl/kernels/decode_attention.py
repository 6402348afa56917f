"""Attention of one new position to the key-value cache, as decoding needs it."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dalle_mini_impl.kernels.force_plain import force_plain


class CacheView(NamedTuple):
    """What one query reads of the cache."""

    positions: slice | Int[Tensor, "k"]
    """The cached positions, those of the text first."""
    mask: Bool[Tensor, "1 k"]
    """Which of them the query may see; all of the text."""
    text: int
    """How many are of the text."""
    prefix_rows: Int[Tensor, "b"] | None
    """For each row the first row with the same text; None if unknown."""


def decode_attention(
    query: Float[Tensor, "b h 1 d"],
    keys: Float[Tensor, "b h total d"],
    values: Float[Tensor, "b h total d"],
    view: CacheView,
) -> Float[Tensor, "b h 1 d"]:
    """Attention of a single query to what `view` shows of the cached keys and values."""
    run = fast if can_fuse_with_its_surroundings() else plain
    return run(query, keys, values, view)


def can_fuse_with_its_surroundings() -> bool:
    """Whether the step is compiled: loops then fuse with the operations around them.

    Measured in docs/performance.md.
    """
    return torch.compiler.is_compiling() and not force_plain()


def plain(
    query: Float[Tensor, "b h 1 d"],
    keys: Float[Tensor, "b h total d"],
    values: Float[Tensor, "b h total d"],
    view: CacheView,
) -> Float[Tensor, "b h 1 d"]:
    """Torch's fused kernel."""
    key, value = keys[:, :, view.positions], values[:, :, view.positions]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=view.mask)


def fast(
    query: Float[Tensor, "b h 1 d"],
    keys: Float[Tensor, "b h total d"],
    values: Float[Tensor, "b h total d"],
    view: CacheView,
) -> Float[Tensor, "b h 1 d"]:
    """Unfused, as products and sums; on a CPU several rows share the keys of one text."""
    if query.device.type == "cpu" and query.shape[0] > 1 and view.prefix_rows is not None:
        return with_shared_prefix(query, keys, values, view)
    key, value = keys[:, :, view.positions], values[:, :, view.positions]
    scores = (query * key).sum(dim=-1, dtype=torch.float32) * query.shape[-1] ** -0.5
    weights = scores.masked_fill(~view.mask, -math.inf).softmax(dim=-1).to(value.dtype)
    return (weights[..., None] * value).sum(dim=2, keepdim=True)


def with_shared_prefix(
    query: Float[Tensor, "b h 1 d"],
    keys: Float[Tensor, "b h total d"],
    values: Float[Tensor, "b h total d"],
    view: CacheView,
) -> Float[Tensor, "b h 1 d"]:
    """The same, with the text's keys and values read from the rows that share them.

    All candidates of a caption then read one copy of its text, which stays in the nearest cache.
    """
    assert view.prefix_rows is not None
    if isinstance(view.positions, slice):
        own: slice | Tensor = slice(view.text, view.positions.stop)
    else:
        own = view.positions[view.text :]
    text_key, text_value = (x[:, :, : view.text][view.prefix_rows] for x in (keys, values))
    key, value = keys[:, :, own], values[:, :, own]
    scale = query.shape[-1] ** -0.5
    to_text = (query * text_key).sum(dim=-1, dtype=torch.float32) * scale
    to_own = (query * key).sum(dim=-1, dtype=torch.float32) * scale
    to_own = to_own.masked_fill(~view.mask[:, view.text :], -math.inf)
    # One softmax over both parts.
    most = torch.maximum(to_text.amax(dim=-1, keepdim=True), to_own.amax(dim=-1, keepdim=True))
    to_text, to_own = (to_text - most).exp(), (to_own - most).exp()
    total = to_text.sum(dim=-1, keepdim=True) + to_own.sum(dim=-1, keepdim=True)
    to_text, to_own = ((part / total).to(value.dtype) for part in (to_text, to_own))
    out = (to_text[..., None] * text_value).sum(dim=2) + (to_own[..., None] * value).sum(dim=2)
    return out[:, :, None]

"""Transformer blocks and the key-value cache they read: what DALL·E and CLIP's text tower share."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.attention.flex_attention import BlockMask, flex_attention

WRITTEN_OUT = 2**23
"""Largest keys, in numbers, with which a query's attention in eager bf16 is written out."""


class KVCache(NamedTuple):
    """Keys and values of every layer and position, allocated once and filled in place."""

    keys: tuple[Float[Tensor, "b h s d"], ...]
    values: tuple[Float[Tensor, "b h s d"], ...]

    @classmethod
    def empty(cls, layers: int, shape: tuple[int, int, int, int], like: Tensor) -> "KVCache":
        """Room for `shape` (streams, heads, positions, width) in each layer, of `like`'s type."""
        # A tensor for each layer: compiled code may then write into one without copying the rest.
        keys, values = (tuple(like.new_zeros(shape) for _ in range(layers)) for _ in range(2))
        return cls(keys, values)

    def take(self, prefix: "KVCache", rows: Int[Tensor, "b"]) -> None:
        """Begin stream i with stream `rows[i]` of `prefix`: one text for all its candidates."""
        ours, theirs = self.keys + self.values, prefix.keys + prefix.values
        for mine, other in zip(ours, theirs, strict=True):
            mine[:, :, : other.shape[2]] = other[rows]


@dataclass(frozen=True)
class Rotary:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864) as cosine and sine tables."""

    cosine: Float[Tensor, "s half"]
    sine: Float[Tensor, "s half"]

    def __call__(self, x: Float[Tensor, "b h s d"]) -> Float[Tensor, "b h s d"]:
        first, second = x.chunk(2, dim=-1)
        cosine, sine = self.cosine.to(x.dtype), self.sine.to(x.dtype)
        turned = (first * cosine - second * sine, second * cosine + first * sine)
        return torch.cat(turned, dim=-1)


def rotary_tables(
    coordinates: Float[Tensor, "s axes"], width: int, base: float = 100.0
) -> tuple[Float[Tensor, "s half"], Float[Tensor, "s half"]]:
    """Cosine and sine of positions with one or more axes, each axis turning a share of `width`.

    The base is far below a language model's 10,000: the streams here are tens to a few thousand
    positions long, and an axis of a grid only tens.
    """
    axes = coordinates.shape[1]
    frequencies = base ** -torch.linspace(0, 1, width // 2 // axes)
    angles = rearrange(coordinates[:, :, None] * frequencies, "s axes f -> s (axes f)")
    return angles.cos(), angles.sin()


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
    elif query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.requires_grad:
        out = attend_in_parts(query, key, value, mask, causal)
    else:
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
    return rearrange(out, "b h q d -> b q (h d)")


@cache
def attend_in_blocks(device: str) -> Any:
    """FlexAttention; on a GPU compiled, as only then it skips the blocks that see nothing."""
    return flex_attention if device == "cpu" else torch.compile(flex_attention, dynamic=False)


def attend_in_parts(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    value: Float[Tensor, "b h k d"],
    mask: Bool[Tensor, "q k"] | None,
    causal: bool,
) -> Float[Tensor, "b h q d"]:
    """The same attention written out.

    Training in bf16 on a CPU takes this road: the backward pass of torch's fused kernel took 30 ms
    there where these products take 6 (32 × 4 heads, 88 positions of 48 channels).
    """
    scores = Scores.apply(query, key) * query.shape[-1] ** -0.5
    if causal:
        scores = scores + scores.new_full(scores.shape[-2:], -math.inf).triu(diagonal=1)
    elif mask is not None:
        scores = scores + torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -math.inf)
    return scores.softmax(dim=-1).to(value.dtype) @ value


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


class WrittenRms(torch.autograd.Function):
    """Root-mean-square normalisation with its gradient written out, in fp32 within.

    torch has no kernel of its own on a CPU and differentiates six operations one by one: in eager
    mode that takes 16 ms where this takes 6 (32 × 88 × 192 numbers, forward and back, one core).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float | None) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        eps = torch.finfo(wide.dtype).eps if eps is None else eps
        mean = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        inverse = mean.add_(eps).rsqrt_()
        ctx.save_for_backward(x, gain, inverse)
        return (wide * inverse).mul_(gain).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x, gain, inverse = ctx.saved_tensors
        normal = x * inverse
        upstream = gradients[0].to(normal.dtype)
        along = upstream * normal
        shared = (along * gain).mean(dim=-1, keepdim=True)
        to_x = torch.addcmul(upstream * gain, normal, shared, value=-1).mul_(inverse)
        return to_x.to(x.dtype), along.flatten(0, -2).sum(dim=0), None


class RMSNorm(nn.RMSNorm):
    """Root-mean-square normalisation whose gain follows its input's type, as the fused one asks."""

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        eager = x.device.type == "cpu" and not torch.compiler.is_compiling()
        if eager and torch.is_grad_enabled():
            return WrittenRms.apply(x, self.weight, self.eps)
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class Linear(nn.Linear):
    """A linear layer whose product is written out where compiled code has one row on a CPU.

    One row is bound by reading the weights, which generated code does while it also does what
    stands before and after the product; a library call does that alone. Weights in bf16 are
    multiplied in bf16, whatever comes in.
    """

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b o"]:
        if self.weight.dtype == torch.bfloat16:
            x = x.to(torch.bfloat16)
        one = x.device.type == "cpu" and x.numel() == self.in_features
        if not (one and torch.compiler.is_compiling()):
            return super().forward(x)
        product = (x[..., None, :] * self.weight).sum(dim=-1)
        return product if self.bias is None else product + self.bias


def lower_products(model: nn.Module) -> None:
    """Turn the weights of all blocks' products to bf16, for sampling; norms and heads stay."""
    for module in model.modules():
        if isinstance(module, Linear):
            module.to(torch.bfloat16)


class Attention(nn.Module):
    """Multi-head self-attention, optionally with RMS-normalised queries and keys."""

    def __init__(self, width: int, heads: int, bias: bool, normalise: bool):
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width, bias=bias)
        self.out = Linear(width, width, bias=bias)
        head = width // heads
        self.norm_query = RMSNorm(head) if normalise else nn.Identity()
        self.norm_key = RMSNorm(head) if normalise else nn.Identity()

    def extra_repr(self) -> str:
        return f"heads={self.heads}"

    def project(
        self, x: Float[Tensor, "b s c"], positions: Rotary | None
    ) -> tuple[Float[Tensor, "b h s d"], Float[Tensor, "b h s d"], Float[Tensor, "b h s d"]]:
        """Queries, keys and values of `x`, turned to their positions."""
        query, key, value = (
            rearrange(part, "b s (h d) -> b h s d", h=self.heads)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        query, key = self.norm_query(query), self.norm_key(key)
        if positions is not None:
            query, key = positions(query), positions(key)
        return query, key, value

    def forward(
        self,
        x: Float[Tensor, "b s c"],
        positions: Rotary | None = None,
        mask: Bool[Tensor, "s s"] | BlockMask | None = None,
        causal: bool = False,
    ) -> Float[Tensor, "b s c"]:
        query, key, value = self.project(x, positions)
        return self.out(attend(query, key, value, mask, causal))


class GatedMLP(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202) with the gate fused into one product."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate_up = Linear(width, 2 * hidden, bias=False)
        self.down = Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "b s c"]) -> Float[Tensor, "b s c"]:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class GeluMLP(nn.Module):
    """The GPT-2 feed-forward layer that DALL·E used."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.up = Linear(width, hidden)
        self.down = Linear(hidden, width)

    def forward(self, x: Float[Tensor, "b s c"]) -> Float[Tensor, "b s c"]:
        return self.down(F.gelu(self.up(x)))


class Block(nn.Module):
    """Pre-norm residual block; its parts say whether it is the modern or the paper's."""

    def __init__(self, attention: Attention, mlp: nn.Module, norms: tuple[nn.Module, nn.Module]):
        super().__init__()
        self.norm_attention, self.norm_mlp = norms
        self.attention = attention
        self.mlp = mlp

    def forward(
        self,
        x: Float[Tensor, "b s c"],
        positions: Rotary | None = None,
        mask: Bool[Tensor, "s s"] | BlockMask | None = None,
        causal: bool = False,
    ) -> Float[Tensor, "b s c"]:
        x = x + self.attention(self.norm_attention(x), positions, mask, causal)
        return x + self.mlp(self.norm_mlp(x))

    def prefill(
        self,
        x: Float[Tensor, "b s c"],
        positions: Rotary | None,
        key_cache: Float[Tensor, "b h total d"],
        value_cache: Float[Tensor, "b h total d"],
    ) -> Float[Tensor, "b s c"]:
        """The first `s` positions at once, causal, leaving their keys and values in the cache."""
        query, key, value = self.attention.project(self.norm_attention(x), positions)
        key_cache[:, :, : x.shape[1]] = key
        value_cache[:, :, : x.shape[1]] = value
        x = x + self.attention.out(attend(query, key, value, None, causal=True))
        return x + self.mlp(self.norm_mlp(x))

    def step(
        self,
        x: Float[Tensor, "b 1 c"],
        positions: Rotary | None,
        key_cache: Float[Tensor, "b h total d"],
        value_cache: Float[Tensor, "b h total d"],
        at: Int[Tensor, "1"],
        seen: Seen,
    ) -> Float[Tensor, "b 1 c"]:
        """One position: written into the cache at `at`, attending to what is `seen` of it."""
        query, key, value = self.attention.project(self.norm_attention(x), positions)
        key_cache.index_copy_(2, at, key)
        value_cache.index_copy_(2, at, value)
        x = x + self.attention.out(attend_once(query, key_cache, value_cache, seen))
        return x + self.mlp(self.norm_mlp(x))


BlockKind = Literal["modern", "dalle"]


def build_block(kind: BlockKind, width: int, heads: int, hidden: int) -> Block:
    """A block of one kind, its residual branches starting at zero in the modern one.

    modern: RMSNorm, QK-norm, SwiGLU, no biases. dalle: LayerNorm, GELU, biases.
    """
    if kind == "modern":
        attention = Attention(width, heads, bias=False, normalise=True)
        mlp = GatedMLP(width, hidden)
        nn.init.zeros_(attention.out.weight)
        nn.init.zeros_(mlp.down.weight)
        return Block(attention, mlp, (RMSNorm(width), RMSNorm(width)))
    if kind == "dalle":
        return Block(
            Attention(width, heads, bias=True, normalise=False),
            GeluMLP(width, hidden),
            (nn.LayerNorm(width), nn.LayerNorm(width)),
        )
    raise ValueError(f"unknown block {kind!r}: modern or dalle")

"""Transformer blocks and the key-value cache they read: what DALL·E and CLIP's text tower share."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.attention.flex_attention import BlockMask

from dalle_mini_impl.kernels.attention import Seen, attend, attend_once
from dalle_mini_impl.kernels.linear import Linear


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


class WrittenRms(torch.autograd.Function):
    """Root-mean-square normalization with its gradient written out, in fp32 within.

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
    """Root-mean-square normalization whose gain follows its input's type, as the fused one asks."""

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        eager = x.device.type == "cpu" and not torch.compiler.is_compiling()
        if eager and torch.is_grad_enabled():
            return WrittenRms.apply(x, self.weight, self.eps)
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Multi-head self-attention, optionally with RMS-normalized queries and keys."""

    def __init__(self, width: int, heads: int, bias: bool, normalize: bool):
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width, bias=bias)
        self.out = Linear(width, width, bias=bias)
        head = width // heads
        self.norm_query = RMSNorm(head) if normalize else nn.Identity()
        self.norm_key = RMSNorm(head) if normalize else nn.Identity()

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
        attention = Attention(width, heads, bias=False, normalize=True)
        mlp = GatedMLP(width, hidden)
        nn.init.zeros_(attention.out.weight)
        nn.init.zeros_(mlp.down.weight)
        return Block(attention, mlp, (RMSNorm(width), RMSNorm(width)))
    if kind == "dalle":
        return Block(
            Attention(width, heads, bias=True, normalize=False),
            GeluMLP(width, hidden),
            (nn.LayerNorm(width), nn.LayerNorm(width)),
        )
    raise ValueError(f"unknown block {kind!r}: modern or dalle")

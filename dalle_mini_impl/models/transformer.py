"""Transformer blocks and the key-value cache they read: what DALL·E and CLIP's text tower share."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dalle_mini_impl.kernels.attention import attention
from dalle_mini_impl.kernels.decode_attention import CacheView, decode_attention
from dalle_mini_impl.kernels.linear import linear
from dalle_mini_impl.kernels.rms_norm import rms_norm
from dalle_mini_impl.models.config import BlockKind
from dalle_mini_impl.models.regularization import BlockMasks


class LayerCache(NamedTuple):
    """Keys and values of one layer, filled in place."""

    keys: Float[Tensor, "b h total d"]
    values: Float[Tensor, "b h total d"]

    def write_prefix(self, key: Float[Tensor, "b h s d"], value: Float[Tensor, "b h s d"]) -> None:
        """Write the first s positions."""
        self.keys[:, :, : key.shape[2]] = key
        self.values[:, :, : value.shape[2]] = value

    def write_at(
        self, at: Int[Tensor, "1"], key: Float[Tensor, "b h 1 d"], value: Float[Tensor, "b h 1 d"]
    ) -> None:
        """Write the position `at`."""
        self.keys.index_copy_(2, at, key)
        self.values.index_copy_(2, at, value)


class KVCache(NamedTuple):
    """Keys and values of every layer and position, allocated once."""

    layers: tuple[LayerCache, ...]

    @classmethod
    def empty(cls, layers: int, shape: tuple[int, int, int, int], like: Tensor) -> "KVCache":
        """Zeros of `shape` (rows, heads, positions, width) for each layer, typed as `like`."""
        # A tensor for each layer: compiled code may then write into one without copying the rest.
        return cls(
            tuple(LayerCache(like.new_zeros(shape), like.new_zeros(shape)) for _ in range(layers))
        )

    def copy_prefix(self, prefix: "KVCache", rows: Int[Tensor, "b"]) -> None:
        """Begin row i with row `rows[i]` of `prefix`: one text for all its candidates."""
        for own, other in zip(self.layers, prefix.layers, strict=True):
            own.write_prefix(other.keys[rows], other.values[rows])


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


class Linear(nn.Linear):
    """A linear layer whose product a kernel does, in bf16 where its weights are bf16."""

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b o"]:
        if self.weight.dtype == torch.bfloat16:
            x = x.to(torch.bfloat16)
        return linear(x, self.weight, self.bias)


def cast_linears_to_bf16(model: nn.Module) -> None:
    """Cast the blocks' linear weights to bf16, for sampling; norms and heads keep their dtype."""
    for module in model.modules():
        if isinstance(module, Linear):
            module.to(torch.bfloat16)


class RMSNorm(nn.RMSNorm):
    """Root-mean-square normalization by a kernel."""

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        return rms_norm(x, self.weight, self.eps)


class FullSequence(NamedTuple):
    """All positions at once. mask: what each sees; None is causal: itself and all before it."""

    mask: Bool[Tensor, "s s"] | None = None


class SingleStep(NamedTuple):
    """One new position `at`, and what it sees of the cache."""

    at: Int[Tensor, "1"]
    view: CacheView


CAUSAL = FullSequence()
AttentionMode = FullSequence | SingleStep


class Attention(nn.Module):
    """Multi-head self-attention, optionally with RMS-normalized queries and keys."""

    def __init__(self, width: int, heads: int, bias: bool, qk_norm: bool):
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width, bias=bias)
        self.out = Linear(width, width, bias=bias)
        head = width // heads
        self.norm_query = RMSNorm(head) if qk_norm else nn.Identity()
        self.norm_key = RMSNorm(head) if qk_norm else nn.Identity()

    def extra_repr(self) -> str:
        return f"heads={self.heads}"

    def project(
        self, x: Float[Tensor, "b s c"], positions: Rotary | None
    ) -> tuple[Float[Tensor, "b h s d"], Float[Tensor, "b h s d"], Float[Tensor, "b h s d"]]:
        """Queries, keys and values of `x`, with rotary embeddings applied."""
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
        mode: AttentionMode = CAUSAL,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "b s c"]:
        """Attention within `x` or, while decoding, of one new position to the cache.

        A cache is filled with the keys and values of `x` on the way.
        """
        query, key, value = self.project(x, positions)
        if isinstance(mode, SingleStep):
            assert cache is not None
            cache.write_at(mode.at, key, value)
            mixed = decode_attention(query, cache.keys, cache.values, mode.view)
        else:
            if cache is not None:
                cache.write_prefix(key, value)
            mixed = attention(query, key, value, mode.mask, causal=mode.mask is None)
        return self.out(rearrange(mixed, "b h s d -> b s (h d)"))


class GatedMLP(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202) with the gate fused into one product."""

    def __init__(self, width: int, ffn_width: int):
        super().__init__()
        self.gate_up = Linear(width, 2 * ffn_width, bias=False)
        self.down = Linear(ffn_width, width, bias=False)

    def forward(self, x: Float[Tensor, "b s c"]) -> Float[Tensor, "b s c"]:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class GeluMLP(nn.Module):
    """The GPT-2 feed-forward layer that DALL·E used."""

    def __init__(self, width: int, ffn_width: int):
        super().__init__()
        self.up = Linear(width, ffn_width)
        self.down = Linear(ffn_width, width)

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
        mode: AttentionMode = CAUSAL,
        cache: LayerCache | None = None,
        masks: BlockMasks | None = None,
    ) -> Float[Tensor, "b s c"]:
        """masks: what training keeps of each branch; None is everything."""
        attended = self.attention(self.norm_attention(x), positions, mode, cache)
        x = x + (attended if masks is None else masks.attention(attended))
        fed = self.mlp(self.norm_mlp(x))
        return x + (fed if masks is None else masks.mlp(fed))


def build_block(kind: BlockKind, width: int, heads: int, ffn_width: int) -> Block:
    """A block of one kind, its residual branches starting at zero in the modern one.

    modern: RMSNorm, QK-norm, SwiGLU, no biases. dalle: LayerNorm, GELU, biases.
    """
    if kind == "modern":
        attention = Attention(width, heads, bias=False, qk_norm=True)
        mlp = GatedMLP(width, ffn_width)
        nn.init.zeros_(attention.out.weight)
        nn.init.zeros_(mlp.down.weight)
        return Block(attention, mlp, (RMSNorm(width), RMSNorm(width)))
    if kind == "dalle":
        return Block(
            Attention(width, heads, bias=True, qk_norm=False),
            GeluMLP(width, ffn_width),
            (nn.LayerNorm(width), nn.LayerNorm(width)),
        )
    raise ValueError(f"unknown block {kind!r}: modern or dalle")

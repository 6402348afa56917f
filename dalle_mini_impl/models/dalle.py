"""DALL·E: one decoder-only transformer over a caption's tokens, then an image's codes.

The stream is [start, t_1 … t_T, c_1 … c_N]. Position T, the last text position, predicts c_1; text
positions never predict codes nor the reverse: two heads share the trunk and each computes only its
own positions (Ramesh et al. 2021, arXiv 2102.12092). The model knows a code count, its factors and
a grid, not an image tokenizer.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask
from torch.utils.checkpoint import checkpoint

from dalle_mini_impl.config import Config, TrainingConfig
from dalle_mini_impl.kernels.attention import Seen
from dalle_mini_impl.models.attention import Pattern, block_mask, dalle_patterns, pattern_mask
from dalle_mini_impl.models.code_head import (
    build_code_embedding,
    build_code_head,
    code_log_likelihood,
)
from dalle_mini_impl.models.transformer import (
    Block,
    BlockKind,
    KVCache,
    RMSNorm,
    Rotary,
    build_block,
    rotary_tables,
)

FLEX_FROM = 512
"""Positions from which patterns leave out whole blocks: FlexAttention's are 128 on a side."""


class TransformerConfig(Config):
    """The transformer: its size, its blocks and how its two losses are weighed."""

    depth: int = Field(6, gt=0)
    """Number of blocks."""
    width: int = Field(192, gt=0)
    """Channels of the residual stream."""
    heads: int = Field(4, gt=0)
    """Attention heads; they divide the width."""
    ffn_width: int = Field(512, gt=0)
    """Channels inside each feed-forward layer."""
    block: BlockKind = "modern"
    """modern: RMSNorm, QK-norm, rotary positions, SwiGLU. dalle: the paper's LayerNorm and GELU."""
    attention: Literal["full", "dalle"] = "full"
    """full causal attention, or the paper's row, column and convolution patterns."""
    upper_neighbor: bool = True
    """Add the embedding of the code above the one to be predicted to each image position."""
    max_image_tokens: int = Field(1024, gt=0)
    """Most codes an image may have: a grid beyond it is refused before memory runs out."""
    text_weight: float = Field(0.125, ge=0, le=1)
    """Share of the text loss in the sum; the image loss has the rest (the paper: 1/8 and 7/8)."""
    caption_dropout: float = Field(0.1, ge=0, lt=1)
    """Share of captions replaced by the null caption, for classifier-free guidance."""
    checkpoint_activations: bool = False
    """Compute blocks again in the backward pass instead of keeping what they computed."""
    training: TrainingConfig = TrainingConfig()
    """How it is trained."""


class Logits(NamedTuple):
    """What every position of the stream predicts, by kind."""

    text: Float[Tensor, "b t v"]
    image: Float[Tensor, "b n k"]
    """Where codes have several factors: the logits of all, each given the factors before it."""


class TrunkOutput(NamedTuple):
    """What the two heads read: one position for each token and each code to be predicted."""

    text: Float[Tensor, "b t c"]
    image: Float[Tensor, "b n c"]


class Dalle(nn.Module):
    """p(caption, codes) as one autoregressive stream.

    Captions are ids padded with 0 (`b t`); codes are row-major (`b n`), n = grid². Every text
    position has a padding token of its own, and the caption that is all padding is the null
    caption of classifier-free guidance. factors: the factors of a code (see `code_head`), whose
    product is the code count; none means one. ValueError where they are not its factors.
    """

    adamw_parameters = ("text_head", "image_head")
    cosine: Tensor
    sine: Tensor

    def __init__(
        self,
        config: TransformerConfig,
        vocabulary_size: int,
        context: int,
        code_count: int,
        grid: int,
        factors: tuple[int, ...] = (),
    ):
        super().__init__()
        self.config = config
        self.factors = factors or (code_count,)
        if math.prod(self.factors) != code_count:
            raise ValueError(f"factors {factors} do not multiply to {code_count}, the code count")
        self.context, self.code_count, self.grid = context, code_count, grid
        self.text_length = context + 1
        self.image_length = grid * grid
        self.length = self.text_length + self.image_length - 1
        width = config.width

        self.token_embedding = nn.Embedding(vocabulary_size, width)
        self.padding_embedding = nn.Embedding(context, width)
        self.text_position = nn.Embedding(self.text_length, width)
        self.start = nn.Parameter(torch.empty(width))
        self.code_embedding = build_code_embedding(self.factors, width)
        self.row_embedding = nn.Embedding(grid, width)
        self.column_embedding = nn.Embedding(grid, width)
        if config.upper_neighbor:
            self.above_embedding = build_code_embedding(self.factors, width, outside=True)

        self.blocks = nn.ModuleList(
            build_block(config.block, width, config.heads, config.ffn_width)
            for _ in range(config.depth)
        )
        self.norm = RMSNorm(width) if config.block == "modern" else nn.LayerNorm(width)
        self.text_head = nn.Linear(width, vocabulary_size, bias=False)
        self.image_head = build_code_head(width, self.factors)
        for embedding in self.modules():
            if isinstance(embedding, nn.Embedding):
                nn.init.normal_(embedding.weight, std=0.02)
        nn.init.normal_(self.start, std=0.02)
        nn.init.normal_(self.text_head.weight, std=0.02)

        self.patterns: list[Pattern] = (
            ["full"] * config.depth if config.attention == "full" else dalle_patterns(config.depth)
        )
        self.block_masks: dict[Pattern, BlockMask] = {}
        for name in sorted(set(self.patterns) - {"full"}):
            mask = pattern_mask(name, self.text_length, self.length, grid)
            seen, allowed = visible_positions(mask[self.text_length :])
            self.register_buffer(f"{name}_mask", mask, persistent=False)
            self.register_buffer(f"{name}_seen", seen, persistent=False)
            self.register_buffer(f"{name}_allowed", allowed, persistent=False)
        self.rotary = config.block == "modern"
        if self.rotary:
            cosine, sine = rotary_tables(
                stream_coordinates(self.text_length, self.length, grid), width // config.heads
            )
            self.register_buffer("cosine", cosine, persistent=False)
            self.register_buffer("sine", sine, persistent=False)

    def forward(self, captions: Int[Tensor, "b t"], codes: Int[Tensor, "b n"]) -> Logits:
        """Logits of every caption token and every code, each given all before it."""
        trunk = self.trunk(captions, codes)
        image = [
            F.linear(each.features, each.weight)
            for each in self.image_head.predictions(trunk.image, codes)
        ]
        return Logits(self.text_head(trunk.text), torch.cat(image, dim=2))

    def log_likelihood(
        self, captions: Int[Tensor, "b t"], codes: Int[Tensor, "b n"]
    ) -> Float[Tensor, "b n"]:
        """ln p of every code given the caption and the codes before it, in nats."""
        trunk = self.trunk(captions, codes)
        return code_log_likelihood(self.image_head.predictions(trunk.image, codes))

    def trunk(self, captions: Int[Tensor, "b t"], codes: Int[Tensor, "b n"]) -> TrunkOutput:
        """The stream up to its heads, so that losses may take the logits in parts."""
        x = torch.cat((self.embed_text(captions), self.embed_codes(codes)), dim=1)
        positions = self.positions(slice(None))
        again = self.config.checkpoint_activations and torch.is_grad_enabled()
        for block, pattern in zip(self.layers, self.patterns, strict=True):
            mask = None if pattern == "full" else self._mask(pattern)
            through: Callable[..., Tensor] = partial(
                block, positions=positions, mask=mask, causal=mask is None
            )
            if again:  # No block draws random numbers, so there are none to restore.
                through = partial(
                    checkpoint, through, use_reentrant=False, preserve_rng_state=False
                )
            x = through(x)
        x = self.norm(x)
        return TrunkOutput(x[:, : self.context], x[:, self.context :])

    def text_logits(self, captions: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        """Logits of every caption token given those before it: `forward` without any codes."""
        x = self.embed_text(captions)[:, : self.context]
        positions = self.positions(slice(0, self.context))
        for block in self.layers:
            x = block(x, positions, causal=True)
        return self.text_head(self.norm(x))

    def _mask(self, pattern: Pattern) -> Tensor | BlockMask:
        blocks = self.block_masks.get(pattern) if self.training else None
        return self.get_buffer(f"{pattern}_mask") if blocks is None else blocks

    def _apply(self, fn: Any, recurse: bool = True) -> "Dalle":
        """Also make what FlexAttention wants when the model is moved to a GPU."""
        super()._apply(fn, recurse)
        device = self.start.device
        if device.type == "cuda" and self.length >= FLEX_FROM:
            self.block_masks = {
                name: block_mask(name, self.text_length, self.length, self.grid, device=device)
                for name in sorted(set(self.patterns) - {"full"})
            }
        else:
            self.block_masks = {}
        return self

    def extra_repr(self) -> str:
        attention = self.config.attention
        return f"context={self.context}, grid={self.grid}, factors={self.factors}, {attention=}"

    @property
    def layers(self) -> list[Block]:
        """The blocks, first to last."""
        return cast(list[Block], list(self.blocks))

    def empty_cache(self, batch: int, length: int | None = None) -> KVCache:
        """A cache for `batch` streams of `length` positions, None for whole ones."""
        heads = self.config.heads
        shape = (batch, heads, length or self.length, self.config.width // heads)
        # Of the type that the blocks' products have.
        return KVCache.empty(self.config.depth, shape, self.layers[0].attention.qkv.weight)

    def prefill(self, captions: Int[Tensor, "b t"], cache: KVCache) -> Float[Tensor, "b c"]:
        """Run the text once, leaving it in the cache; returns what the first code is drawn from."""
        x = self.embed_text(captions)
        positions = self.positions(slice(0, self.text_length))
        for block, keys, values in zip(self.layers, cache.keys, cache.values, strict=True):
            x = block.prefill(x, positions, keys, values)
        return self.norm(x[:, -1])

    def step(
        self,
        code: Int[Tensor, "b"],
        above: Int[Tensor, "b"],
        index: Int[Tensor, "1"],
        cache: KVCache,
        window: Int[Tensor, "r"],
        leaders: Int[Tensor, "b"] | None = None,
    ) -> Float[Tensor, "b c"]:
        """Feed the code at `index` (0 … n-2); returns what the next is drawn from (`image_head`).

        above: the code over the next one, `code_count` in the first row. window: 0 … r-1, the
        cached positions that full attention reads; r is at least text_length + index + 1. leaders:
        for each stream one that has the same text.
        """
        at = self.text_length + index
        x = self.code_embedding(code) + self.row_embedding(index // self.grid)
        x = x + self.column_embedding(index % self.grid)
        if self.config.upper_neighbor:
            x = x + self.above_embedding(above)
        x = x[:, None]
        positions = self.positions(at)
        text = self.text_length
        full = Seen(slice(0, window.shape[0]), (window <= at)[None], text, leaders)
        for block, pattern, keys, values in zip(
            self.layers, self.patterns, cache.keys, cache.values, strict=True
        ):
            seen = full
            if pattern != "full":
                allowed = self.get_buffer(f"{pattern}_allowed")[index]
                near = self.get_buffer(f"{pattern}_seen")[index][0]
                places = torch.cat((torch.arange(text, device=at.device), near))
                mask = torch.cat((allowed.new_ones(1, text), allowed), dim=1)
                seen = Seen(places, mask, text, leaders)
            x = block.step(x, positions, keys, values, at, seen)
        return self.norm(x[:, 0])

    def embed_text(self, captions: Int[Tensor, "b t"]) -> Float[Tensor, "b s c"]:
        """The start position and the caption, each pad replaced by its position's own."""
        padding = self.padding_embedding.weight[None]
        tokens = self.token_embedding(captions)
        tokens = torch.where((captions == 0)[:, :, None], padding, tokens)
        start = self.start.expand(len(captions), 1, -1)
        return torch.cat((start, tokens), dim=1) + self.text_position.weight

    def embed_codes(self, codes: Int[Tensor, "b n"]) -> Float[Tensor, "b m c"]:
        """All codes but the last, which nothing follows, with their places."""
        rows = self.row_embedding.weight[:, None]
        places = (rows + self.column_embedding.weight[None]).flatten(0, 1)
        x = (self.code_embedding(codes) + places)[:, :-1]
        if self.config.upper_neighbor:
            x = x + self.above_embedding(self.above(codes))
        return x

    def above(self, codes: Int[Tensor, "b n"]) -> Int[Tensor, "b m"]:
        """For each code but the last, the code over the one that follows it."""
        outside = codes.new_full((len(codes), self.grid - 1), self.code_count)
        return torch.cat((outside, codes), dim=1)[:, : self.image_length - 1]

    def positions(self, where: slice | Tensor) -> Rotary | None:
        """Rotary tables of some positions of the stream, where the block wants them."""
        return Rotary(self.cosine[where], self.sine[where]) if self.rotary else None


def stream_coordinates(text: int, length: int, grid: int) -> Float[Tensor, "s 2"]:
    """Row and column of every position: text runs along the diagonal, the grid stands after it."""
    diagonal = torch.arange(text).repeat(2, 1).T
    index = torch.arange(length - text)
    places = torch.stack((index // grid, index % grid), dim=1) + text
    return torch.cat((diagonal, places)).float()


def visible_positions(
    mask: Bool[Tensor, "q s"],
) -> tuple[Int[Tensor, "q m"], Bool[Tensor, "q m"]]:
    """For each image query, the image positions it sees, padded to the largest number.

    mask: the queries' rows of a pattern mask, in which the first s - q positions are text.
    Returns positions and which of them are real: decoding then touches these and nothing else.
    """
    text = mask.shape[1] - mask.shape[0]
    nearby = mask[:, text:]
    most = int(nearby.sum(1).max())
    allowed, order = nearby.long().sort(dim=1, descending=True, stable=True)
    return order[:, :most] + text, allowed[:, :most].bool()

"""DALL·E: one decoder-only transformer over a caption's tokens, then an image's codes.

The sequence is [start, t_1 … t_T, c_1 … c_N]; the last code is only predicted, so the input ends
with c_{N-1}. Position T, the last text position, predicts c_1. Text positions never predict codes
nor the reverse: two heads share the trunk and each computes only its own positions (Ramesh et al.
2021, arXiv 2102.12092). The model knows a code count, its factors and a grid, not an image
tokenizer.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from dalle_mini_impl.models.attention import (
    FullVisibility,
    Pattern,
    PatternVisibility,
    dalle_patterns,
)
from dalle_mini_impl.models.code_head import build_code_head, code_log_likelihood
from dalle_mini_impl.models.config import TransformerConfig
from dalle_mini_impl.models.regularization import draw_masks
from dalle_mini_impl.models.stream import StreamEmbedding, stream_coordinates
from dalle_mini_impl.models.transformer import (
    Block,
    FullSequence,
    KVCache,
    RMSNorm,
    Rotary,
    SingleStep,
    build_block,
    rotary_tables,
)


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
        near = (config.upper_neighbor, config.preceding_tokens)
        self.embedding = StreamEmbedding(width, vocabulary_size, context, self.factors, grid, *near)
        self.blocks = nn.ModuleList(
            build_block(config.block, width, config.heads, config.ffn_width)
            for _ in range(config.depth)
        )
        self.norm = RMSNorm(width) if config.block == "modern" else nn.LayerNorm(width)
        self.text_head = nn.Linear(width, vocabulary_size, bias=False)
        self.image_head = build_code_head(width, self.factors)
        nn.init.normal_(self.text_head.weight, std=0.02)

        self.patterns: list[Pattern] = (
            ["full"] * config.depth if config.attention == "full" else dalle_patterns(config.depth)
        )
        self.visibility = nn.ModuleDict(
            {
                name: FullVisibility()
                if name == "full"
                else PatternVisibility(name, self.text_length, self.length, grid)
                for name in sorted(set(self.patterns))
            }
        )
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
        """The stream up to its heads, so that losses may compute the logits in chunks.

        In training mode with dropout and stochastic depth as configured.
        """
        x = torch.cat((self.embedding.text(captions), self.embedding.codes(codes)), dim=1)
        masks = draw_masks(self.config, x) if self.training else None
        if masks is not None:
            x = masks.embedding(x)
        positions = self.positions(slice(None))
        recompute = self.config.checkpoint_activations and torch.is_grad_enabled()
        for number, (block, visibility) in enumerate(self.layers):
            run: Callable[..., Tensor] = partial(
                block,
                positions=positions,
                mode=FullSequence(visibility.mask),
                masks=None if masks is None else masks.blocks[number],
            )
            if recompute:  # No block draws random numbers, so there are none to restore.
                run = partial(checkpoint, run, use_reentrant=False, preserve_rng_state=False)
            x = run(x)
        x = self.norm(x)
        return TrunkOutput(x[:, : self.context], x[:, self.context :])

    def text_logits(self, captions: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        """Logits of every caption token given those before it: `forward` without any codes."""
        x = self.embedding.text(captions)[:, : self.context]
        positions = self.positions(slice(0, self.context))
        for block, _ in self.layers:
            x = block(x, positions)
        return self.text_head(self.norm(x))

    def extra_repr(self) -> str:
        attention = self.config.attention
        return f"context={self.context}, grid={self.grid}, factors={self.factors}, {attention=}"

    @property
    def layers(self) -> list[tuple[Block, FullVisibility | PatternVisibility]]:
        """The blocks, first to last, each with what its positions see."""
        visible = [self.visibility[pattern] for pattern in self.patterns]
        return cast(
            list[tuple[Block, FullVisibility | PatternVisibility]],
            list(zip(self.blocks, visible, strict=True)),
        )

    def empty_cache(self, rows: int, length: int | None = None) -> KVCache:
        """A cache for `rows` streams of `length` positions, None for whole ones."""
        heads = self.config.heads
        shape = (rows, heads, length or self.length, self.config.width // heads)
        first, _ = self.layers[0]
        # Of the same dtype as the blocks' linear layers.
        return KVCache.empty(self.config.depth, shape, first.attention.qkv.weight)

    def prefill(self, captions: Int[Tensor, "b t"], cache: KVCache) -> Float[Tensor, "b c"]:
        """Run the text once, leaving it in the cache; returns what the first code is drawn from."""
        x = self.embedding.text(captions)
        positions = self.positions(slice(0, self.text_length))
        for (block, _), layer in zip(self.layers, cache.layers, strict=True):
            x = block(x, positions, cache=layer)
        return self.norm(x[:, -1])

    def step(
        self,
        code: Int[Tensor, "b"],
        above: Int[Tensor, "b"],
        index: Int[Tensor, "1"],
        cache: KVCache,
        window: Int[Tensor, "r"],
        prefix_rows: Int[Tensor, "b"] | None = None,
    ) -> Float[Tensor, "b c"]:
        """Feed the code at `index` (0 … n-2); returns what the next is drawn from (`image_head`).

        above: the code over the next one, `code_count` in the first row. window: 0 … r-1, the
        cached positions that full attention looks at; r is at least text_length + index + 1.
        prefix_rows: for each row one that has the same text.
        """
        at = self.text_length + index
        x = self.embedding.one_code(code, above, index)[:, None]
        positions = self.positions(at)
        views = {
            name: cast(FullVisibility, visibility).view(
                index, window, self.text_length, prefix_rows
            )
            for name, visibility in self.visibility.items()
        }
        for block, pattern, layer in zip(self.blocks, self.patterns, cache.layers, strict=True):
            x = block(x, positions, SingleStep(at, views[pattern]), layer)
        return self.norm(x[:, 0])

    def positions(self, where: slice | Tensor) -> Rotary | None:
        """Rotary tables of some positions of the stream, where the block wants them."""
        return Rotary(self.cosine[where], self.sine[where]) if self.rotary else None

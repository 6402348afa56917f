"""The shape of transformer that every contender is given, and what work it is at the least."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """One transformer over a caption's tokens and an image's codes."""

    depth: int = 6
    """Blocks."""
    width: int = 256
    """Channels of the residual stream."""
    heads: int = 4
    """Attention heads."""
    ffn_width: int = 688
    """Channels inside a gated feed-forward layer: 8/3 of the width, as Llama rounds it to 16."""
    text: int = 32
    """Caption positions."""
    grid: int = 8
    """Side of the grid of codes."""
    text_vocabulary: int = 512
    """Different caption tokens."""
    codes: int = 512
    """Different image codes."""

    @property
    def image(self) -> int:
        """Image positions."""
        return self.grid**2

    @property
    def tokens(self) -> int:
        """All positions of one example."""
        return self.text + self.image


@dataclass(frozen=True)
class Work:
    """What a model multiplies: counts of weights, so that 2 FLOPs stand for each per row."""

    parameters: int
    """All trained weights, embeddings included."""
    blocks: int
    """Weights of the blocks, multiplied at every position."""
    image_head: int
    """Weights that make the logits of an image position."""
    text_head: int
    """Weights that make the logits of a caption position."""
    attention_width: int
    """Channels of all heads together."""


def training_flops(shape: Shape, work: Work, batch: int) -> float:
    """FLOPs of one step forward and backward: 6 per weight and position, and causal attention.

    Attention's two products cost 12·L·d·S per position (Chowdhery et al. 2022, arXiv 2204.02311,
    appendix B); a causal one needs half of that. Optimizers are not counted.
    """
    products = (
        shape.tokens * work.blocks + shape.image * work.image_head + shape.text * work.text_head
    )
    attention = shape.depth * work.attention_width * shape.tokens**2
    return batch * 6.0 * (products + attention)

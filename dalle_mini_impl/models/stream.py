"""The stream that the transformer reads: a start position, a caption's tokens, an image's codes."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dalle_mini_impl.models.code_head import build_code_embedding
from dalle_mini_impl.models.token_embedding import TokenEmbedding


class StreamEmbedding(nn.Module):
    """Captions and codes as vectors, with their positions added.

    Every text position has a padding token of its own (Ramesh et al. 2021, arXiv 2102.12092,
    section 2.2). A code adds its row and column and, with `upper_neighbor`, the code above the one
    that follows it, since that is the one to be predicted.
    """

    def __init__(
        self,
        width: int,
        vocabulary_size: int,
        context: int,
        factors: tuple[int, ...],
        grid: int,
        upper_neighbor: bool,
        preceding_tokens: int,
    ):
        super().__init__()
        self.code_count, self.grid = math.prod(factors), grid
        self.token = TokenEmbedding(vocabulary_size, width, preceding_tokens)
        self.padding = nn.Embedding(context, width)
        self.text_position = nn.Embedding(context + 1, width)
        self.start = nn.Parameter(torch.empty(width))
        self.code = build_code_embedding(factors, width)
        self.row = nn.Embedding(grid, width)
        self.column = nn.Embedding(grid, width)
        self.above = build_code_embedding(factors, width, outside=True) if upper_neighbor else None
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        nn.init.normal_(self.start, std=0.02)

    def text(self, captions: Int[Tensor, "b t"]) -> Float[Tensor, "b s c"]:
        """The start position and the caption, each pad replaced by its position's own."""
        tokens = self.token(captions)
        tokens = torch.where((captions == 0)[:, :, None], self.padding.weight[None], tokens)
        start = self.start.expand(len(captions), 1, -1)
        return torch.cat((start, tokens), dim=1) + self.text_position.weight

    def codes(self, codes: Int[Tensor, "b n"]) -> Float[Tensor, "b m c"]:
        """All codes but the last, which nothing follows."""
        positions = (self.row.weight[:, None] + self.column.weight[None]).flatten(0, 1)
        x = (self.code(codes) + positions)[:, :-1]
        return x if self.above is None else x + self.above(self.codes_above(codes))

    def one_code(
        self, code: Int[Tensor, "b"], above: Int[Tensor, "b"], index: Int[Tensor, "1"]
    ) -> Float[Tensor, "b c"]:
        """The code at `index`; above: the code over the next one, `code_count` in the first row."""
        x = self.code(code) + self.row(index // self.grid) + self.column(index % self.grid)
        return x if self.above is None else x + self.above(above)

    def codes_above(self, codes: Int[Tensor, "b n"]) -> Int[Tensor, "b m"]:
        """For each code but the last, the code over the one that follows it."""
        outside = codes.new_full((len(codes), self.grid - 1), self.code_count)
        return torch.cat((outside, codes), dim=1)[:, : codes.shape[1] - 1]


def stream_coordinates(text: int, length: int, grid: int) -> Float[Tensor, "s 2"]:
    """Row and column of every position: text runs along the diagonal, the grid stands after it."""
    diagonal = torch.arange(text).repeat(2, 1).T
    index = torch.arange(length - text)
    positions = torch.stack((index // grid, index % grid), dim=1) + text
    return torch.cat((diagonal, positions)).float()

"""Vectors of a caption's tokens, each with those of the tokens before it."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dalle_mini_impl.kernels.embedding import Embedding


class TokenEmbedding(nn.Module):
    """A token's own vector plus one for each of the `preceding` tokens before it, by distance.

    A noun then knows its attributes and what it stands beside before any attention, which has to
    find out where to look. Nothing is added for padding.
    """

    def __init__(self, vocabulary_size: int, width: int, preceding: int):
        super().__init__()
        self.own = Embedding(vocabulary_size, width)
        self.preceding = nn.ModuleList(Embedding(vocabulary_size, width) for _ in range(preceding))
        for embedding in (self.own, *self.preceding):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, captions: Int[Tensor, "b t"]) -> Float[Tensor, "b t c"]:
        vectors = self.own(captions)
        for distance, embedding in enumerate(self.preceding, start=1):
            before = F.pad(captions, (distance, 0))[:, : captions.shape[1]]
            vectors = vectors + torch.where((before != 0)[:, :, None], embedding(before), 0)
        return vectors

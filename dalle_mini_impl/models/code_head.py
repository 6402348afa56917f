"""How codes enter the transformer and leave it: embeddings, logits, and draws for the engine.

A code may have several factors: digits of a number, the one that counts ones first. Then its
embedding is the sum of theirs, and they are predicted one after the other, each from the
transformer's output and the factors before it: 1,048,576 codes of factors 256, 64 and 64 take 384
logits. The token factorization of MAGVIT-v2 (arXiv 2310.05737) with a prediction of each subtoken
given the last (Open-MAGVIT2, arXiv 2409.04410).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dalle_mini_impl.kernels.cross_entropy import cross_entropy
from dalle_mini_impl.kernels.embedding import Embedding

Choose = Callable[[Tensor, Tensor], Tensor]
"""From logits of all rows (`rows k`) and a uniform number of each image (`b`), a choice (`b`).

The rows are the images', or with guidance twice as many: conditional, then null. How they are
combined, filtered and drawn from is the caller's.
"""


class CodePrediction(NamedTuple):
    """One softmax: its logits are features · weightᵀ."""

    features: Float[Tensor, "b n c"]
    weight: Float[Tensor, "k c"]
    targets: Int[Tensor, "b n"]


class CodeHead(nn.Linear):
    """One softmax over all codes.

    What the decoding engine asks of a head: `draws`, the uniform numbers that it takes for each
    code, and `draw`. What losses ask of it: `predictions`.
    """

    draws = 1

    def __init__(self, width: int, code_count: int):
        super().__init__(width, code_count, bias=False)
        nn.init.normal_(self.weight, std=0.02)

    def draw(
        self, hidden: Float[Tensor, "rows c"], uniform: Float[Tensor, "b draws"], choose: Choose
    ) -> Int[Tensor, "b"]:
        """The next code of each image; hidden: the last position's normalized output."""
        return choose(self(hidden), uniform[:, 0])

    def predictions(
        self, hidden: Float[Tensor, "b n c"], codes: Int[Tensor, "b n"]
    ) -> list[CodePrediction]:
        """The softmaxes whose log-probabilities add up to that of each code."""
        return [CodePrediction(hidden, self.weight, codes)]


class FactorHead(nn.Module):
    """A softmax for each factor of a code, given the factors before it."""

    def __init__(self, width: int, factors: tuple[int, ...]):
        super().__init__()
        self.factors = factors
        self.draws = len(factors)
        self.project = nn.Linear(width, width * len(factors), bias=False)
        # How each factor changes what is predicted of those that follow it.
        self.given = nn.ModuleList(
            Embedding(count, width * (len(factors) - place - 1))
            for place, count in enumerate(factors[:-1])
        )
        for embedding in self.given:
            nn.init.normal_(cast(nn.Embedding, embedding).weight, std=0.02)
        self.outputs = nn.ModuleList(nn.Linear(width, count, bias=False) for count in factors)

    def draw(
        self, hidden: Float[Tensor, "rows c"], uniform: Float[Tensor, "b draws"], choose: Choose
    ) -> Int[Tensor, "b"]:
        """The next code of each image, factor by factor."""
        features = list(self.project(hidden).chunk(self.draws, dim=-1))
        code, place = torch.zeros_like(uniform[:, 0], dtype=torch.long), 1
        for at, (output, count) in enumerate(zip(self.outputs, self.factors, strict=True)):
            digit = choose(output(F.relu(features[at]).square()), uniform[:, at])
            code, place = code + digit * place, place * count
            if at + 1 < self.draws:
                rows = digit.repeat(hidden.shape[0] // digit.shape[0])
                self._condition(features, at, rows)
        return code

    def predictions(
        self, hidden: Float[Tensor, "b n c"], codes: Int[Tensor, "b n"]
    ) -> list[CodePrediction]:
        """The softmaxes whose log-probabilities add up to that of each code."""
        features = list(self.project(hidden).chunk(self.draws, dim=-1))
        digits = split_code(codes, self.factors)
        for at in range(self.draws - 1):
            self._condition(features, at, digits[at])
        return [
            CodePrediction(F.relu(own).square(), cast(Tensor, output.weight), digit)
            for own, output, digit in zip(features, self.outputs, digits, strict=True)
        ]

    def _condition(self, features: list[Tensor], at: int, digits: Tensor) -> None:
        shifts = self.given[at](digits).chunk(self.draws - at - 1, dim=-1)
        for later, shift in enumerate(shifts, start=at + 1):
            features[later] = features[later] + shift


class FactorEmbedding(nn.Module):
    """The sum of a vector for each factor of a code; one of its own for `outside`, if wanted."""

    def __init__(self, factors: tuple[int, ...], width: int, outside: bool):
        super().__init__()
        self.factors = factors
        self.code_count = math.prod(factors)
        self.vectors = nn.ModuleList(Embedding(count, width) for count in factors)
        self.outside = nn.Parameter(torch.zeros(width)) if outside else None

    def forward(self, codes: Int[Tensor, "*b"]) -> Float[Tensor, "*b c"]:
        """codes: below code_count, which itself stands for what is outside the image."""
        digits = split_code(codes, self.factors)
        vectors = [own(digit) for own, digit in zip(self.vectors, digits, strict=True)]
        total = torch.stack(vectors).sum(dim=0)
        if self.outside is None:
            return total
        return torch.where((codes < self.code_count)[..., None], total, self.outside)


@torch.no_grad()
def start_from_codebooks(
    module: "nn.Embedding | FactorEmbedding | CodeHead | FactorHead",
    codebooks: Sequence[Float[Tensor, "_ _"]],
) -> None:
    """Start rows of codes from random projections of their latents.

    Codes that decode to something similar then start similar, so what is learned of one is learned
    of its neighbors. codebooks: the latents of the codes of each factor.
    """
    tables: list[Tensor]
    match module:
        case FactorEmbedding():
            tables = [cast(Tensor, vectors.weight) for vectors in module.vectors]
        case FactorHead():
            for embedding, codes in zip(module.given, codebooks, strict=False):
                _start_from(cast(Tensor, embedding.weight), codes)
            tables = [cast(Tensor, output.weight) for output in module.outputs]
        case _:
            tables = [module.weight]
    for table, codes in zip(tables, codebooks, strict=True):
        _start_from(table, codes)


def _start_from(table: Float[Tensor, "n c"], codes: Float[Tensor, "k d"]) -> None:
    """Rows for what is no code, beyond the codebook's, stay as they are."""
    codes = (codes - codes.mean(dim=0)) / codes.std(dim=0).clamp_min(1e-6)
    projection = torch.randn(codes.shape[1], table.shape[1]) / codes.shape[1] ** 0.5
    table[: len(codes)] = 0.3 * table[: len(codes)] + 0.02 * codes.cpu() @ projection


def split_code(codes: Int[Tensor, "*b"], factors: tuple[int, ...]) -> list[Int[Tensor, "*b"]]:
    """The digits of codes, the one that counts ones first."""
    digits = []
    for count in factors:
        digits.append(codes % count)
        codes = codes // count
    return digits


def build_code_head(width: int, factors: tuple[int, ...]) -> CodeHead | FactorHead:
    """The head for codes of these factors."""
    return CodeHead(width, factors[0]) if len(factors) == 1 else FactorHead(width, factors)


def build_code_embedding(
    factors: tuple[int, ...], width: int, outside: bool = False
) -> nn.Embedding | FactorEmbedding:
    """The embedding for codes of these factors.

    outside: also of the code count, which stands for what is outside the image.
    """
    if len(factors) == 1:
        return Embedding(factors[0] + outside, width)
    return FactorEmbedding(factors, width, outside)


def code_log_likelihood(predictions: list[CodePrediction]) -> Float[Tensor, "b n"]:
    """ln p of each code, in nats."""
    return -torch.stack([cross_entropy(*each) for each in predictions]).sum(dim=0)

"""Captions sampled from the transformer: from p(caption | it begins with a prompt).

The stream begins with the caption, so the transformer also models captions. A prompt may end inside
a word, where byte-pair encoding gives tokens that no training caption has: "a small re" ends in a
token that is never followed by "d", because "red" is one token. So the last word of the prompt is
not taken as encoded. Instead, all token sequences compete whose text begins with it ("re", "red",
"rectangle"). After that, a token may continue a word only if encoding the text gives these tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dalle_mini_impl.captions import BLANK, PAD, CaptionTokenizer, clean_caption
from dalle_mini_impl.sampling.config import SamplingConfig
from dalle_mini_impl.sampling.draw import DrawParameters, draw, seeded

TextLogits = Callable[[Tensor], Tensor]
"""Caption ids `b t` to the logits of every token given those before it, `b t v`."""


@dataclass(frozen=True)
class SampledCaption:
    """A sampled caption."""

    caption: str
    seed: int
    """The caption's own seed: with the same prompt it gives the same caption, in any batch."""
    log_probability: float
    """ln p(caption) in nats, with its end, at temperature 1."""


def sample_captions(
    tokenizer: CaptionTokenizer,
    text_logits: TextLogits,
    prompt: str,
    seeds: Sequence[int],
    temperature: float = 1.0,
    top_k: int = 0,
    device: str | torch.device = "cpu",
) -> list[SampledCaption]:
    """One caption per seed, each beginning with `prompt`, which may be empty.

    A blank at the end of the prompt ends its last word; without it the word may be continued.
    temperature: divides the logits, 0 always takes the most likely token. top_k: draw from the k
    most likely tokens, 0 from all. A caption ends at its first padding token or at the context.
    Raises ValueError for a prompt longer than the context and for negative settings.
    """
    if temperature < 0 or top_k < 0:
        raise ValueError(f"temperature is {temperature} and top_k {top_k}: neither may be negative")
    openings = _openings(tokenizer, prompt)
    parameters = DrawParameters.of(SamplingConfig(temperature=temperature, top_k=top_k))
    generators = [seeded(seed) for seed in seeds]
    spelled = tokenizer.spellings()
    scores = _opening_scores(tokenizer, text_logits, openings, device)
    ids = torch.full((len(seeds), tokenizer.context), PAD)
    places = []
    for row, generator in enumerate(generators):
        opening = openings[_draw(scores, parameters, generator)]
        ids[row, : len(opening)] = torch.tensor(opening, dtype=torch.long)
        places.append(len(opening))
    open_rows = [row for row, place in enumerate(places) if place < tokenizer.context]
    while open_rows:
        at = torch.tensor([places[row] for row in open_rows])
        logits = text_logits(ids[open_rows].to(device)).float().cpu()[torch.arange(len(at)), at]
        for row, own in zip(open_rows, logits, strict=True):
            token = _next_token(
                tokenizer,
                spelled,
                ids[row, : places[row]].tolist(),
                own,
                parameters,
                generators[row],
            )
            ids[row, places[row]] = token
            places[row] += 1
        open_rows = [
            r for r in open_rows if places[r] < tokenizer.context and ids[r, places[r] - 1] != PAD
        ]
    probabilities = log_probability(text_logits(ids.to(device)).cpu(), ids).tolist()
    return [
        SampledCaption(tokenizer.decode(row), seed, probability)
        for row, seed, probability in zip(ids.tolist(), seeds, probabilities, strict=True)
    ]


def log_probability(logits: Float[Tensor, "b t v"], ids: Int[Tensor, "b t"]) -> Float[Tensor, "b"]:
    """ln p of each caption, in nats: its tokens and the padding token that ends it."""
    each = logits.float().log_softmax(dim=-1).gather(2, ids[:, :, None])[:, :, 0]
    counted = (ids == PAD).cumsum(dim=1) <= 1
    return (each * counted).sum(dim=1)


def _openings(tokenizer: CaptionTokenizer, prompt: str) -> list[list[int]]:
    """All token sequences that encoded captions with this prompt can begin with."""
    # Several blanks at the end mean the same as one: the last word is complete.
    if not prompt.strip():
        return [[]]
    *whole, last = tokenizer.words(clean_caption(prompt) + " " * (prompt != prompt.rstrip()))
    before = [token for word in whole for token in tokenizer.spell(word)]
    spelled = tokenizer.spellings()
    openings = []
    for split in range(len(last)):
        head = tokenizer.spell(last[:split])
        for token, spelling in enumerate(spelled):
            reaches = token != PAD and spelling.startswith(last[split:])
            if reaches and tokenizer.spell(last[:split] + spelling) == [*head, token]:
                openings.append([*before, *head, token])
    openings = [opening for opening in openings if len(opening) <= tokenizer.context]
    if not openings:
        raise ValueError(
            f"the prompt {prompt!r} has more tokens than the {tokenizer.context} of a caption: "
            "shorten it"
        )
    return openings


def _opening_scores(
    tokenizer: CaptionTokenizer,
    text_logits: TextLogits,
    openings: Sequence[Sequence[int]],
    device: str | torch.device,
) -> Float[Tensor, "n"]:
    """ln p of each opening; openings that differ only in the last token share a row."""
    if openings == [[]]:
        return torch.zeros(1)
    heads = list(dict.fromkeys(tuple(opening[:-1]) for opening in openings))
    rows = torch.full((len(heads), tokenizer.context), PAD)
    for row, tokens in zip(rows, heads, strict=True):
        row[: len(tokens)] = torch.tensor(tokens, dtype=torch.long)
    each = text_logits(rows.to(device)).float().cpu().log_softmax(dim=-1)
    prefix = each.gather(2, rows[:, :, None])[:, :, 0].cumsum(dim=1)
    numbers = {head: number for number, head in enumerate(heads)}
    scores = []
    for *head, token in openings:
        row, length = numbers[tuple(head)], len(head)
        scores.append(each[row, length, token] + (prefix[row, length - 1] if length else 0.0))
    return torch.stack(scores)


def _next_token(
    tokenizer: CaptionTokenizer,
    spelled: Sequence[str],
    previous: Sequence[int],
    logits: Float[Tensor, "v"],
    parameters: DrawParameters,
    generator: np.random.Generator,
) -> int:
    """A token that encoding could give after the previous ones, by rejection."""
    logits = logits.clone()
    while True:
        token = _draw(logits, parameters, generator)
        if previous if token == PAD else _continues(tokenizer, spelled, previous, token):
            return token
        # Drawing again leaves the other tokens in proportion.
        logits[token] = float("-inf")


def _continues(
    tokenizer: CaptionTokenizer, spelled: Sequence[str], previous: Sequence[int], token: int
) -> bool:
    """Whether encoding the word that `token` ends gives these tokens."""
    if spelled[token].startswith(BLANK):
        return True
    start = next(
        (i for i in reversed(range(len(previous))) if spelled[previous[i]][0] == BLANK), None
    )
    if start is None:
        return False
    word = [*previous[start:], token]
    return tokenizer.spell("".join(spelled[i] for i in word)) == word


def _draw(
    logits: Float[Tensor, "v"], parameters: DrawParameters, generator: np.random.Generator
) -> int:
    return int(draw(logits[None], torch.tensor([generator.random(dtype=np.float32)]), parameters))

"""Hard negatives for CLIP: captions with one attribute that is wrong for the image.

Synthetic data records what each caption claims, so its negatives are certainly false. In other
collections a word is replaced by one that occurs between the same two neighbors elsewhere: "red
heart" becomes "green heart".

Only a negative for an image of the held-out split may name a held-out composition: training must
not see one, not even as a wrong caption.
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from dalle_mini_impl.data.splits import Split
from dalle_mini_impl.data.synthetic.claims import Claims, phrase_claims
from dalle_mini_impl.data.synthetic.panel_captions import (
    Request,
    phrase_request,
    request_held_out,
    wrong_request,
)
from dalle_mini_impl.data.synthetic.panels import Panels
from dalle_mini_impl.data.synthetic.shapes import claims_held_out
from dalle_mini_impl.data.synthetic.swaps import swap_attribute

Negative = Callable[[int, int, random.Random], str | None]
"""A wrong caption for caption `j` of image `i`, or None where none can be made."""

OwnIds = Callable[[int], Int[np.ndarray, "k t"]]
"""The ids of an image's captions."""
Encode = Callable[[Sequence[str]], np.ndarray]
"""Captions to their ids."""

TRIES = 32


def synthetic_negatives(attributes: Sequence[dict[str, Any] | None], split: Split) -> Negative:
    """Negatives from the claims or the request that synthetic data records for each caption."""

    def wrong(known: dict[str, Any], caption: int, rng: random.Random) -> tuple[str, bool]:
        """A wrong caption, and whether it names a held-out composition."""
        if "claims" in known:
            claims = swap_attribute(Claims.from_dict(known["claims"][caption]), rng)
            return phrase_claims(claims, rng), claims_held_out(claims)
        panels = Panels.from_dict(known["panels"])
        request = wrong_request(Request.from_dict(known["requests"][caption]), panels, rng)
        return phrase_request(request, rng), request_held_out(request, panels)

    def negative(image: int, caption: int, rng: random.Random) -> str | None:
        known = attributes[image]
        for _ in range(TRIES if known else 0):
            text, held_out = wrong(known or {}, caption, rng)
            if split == "held_out" or not held_out:
                return text
        return None

    return negative


def word_negatives(captions: Sequence[Sequence[str]], held_out: Sequence[str] = ()) -> Negative:
    """Negatives that replace one word by another seen between the same two neighbors.

    held_out: regular expressions (any case) of captions that must not be made.
    """
    matchers = [re.compile(expression, re.I) for expression in held_out]
    fillers: dict[tuple[str, str], set[str]] = defaultdict(set)
    texts = {text for of_image in captions for text in of_image}
    for text in texts:
        words = ["", *text.split(), ""]
        for before, word, after in zip(words, words[1:], words[2:], strict=False):
            fillers[before, after].add(word)
    choices = {between: sorted(words) for between, words in fillers.items() if len(words) > 1}

    def negative(image: int, caption: int, rng: random.Random) -> str | None:
        words = ["", *captions[image][caption].split(), ""]
        replaceable = [
            at for at in range(1, len(words) - 1) if (words[at - 1], words[at + 1]) in choices
        ]
        own = set(captions[image])
        for _ in range(TRIES if replaceable else 0):
            at = rng.choice(replaceable)
            word = rng.choice(choices[words[at - 1], words[at + 1]])
            changed = " ".join([*words[1:at], word, *words[at + 1 : -1]])
            allowed = changed not in own and not any(m.search(changed) for m in matchers)
            if word != words[at] and allowed:
                return changed
        return None

    return negative


def hard_negatives(
    captions: Sequence[Sequence[str]],
    attributes: Sequence[dict[str, Any] | None],
    split: Split,
    held_out_captions: Sequence[str],
) -> Negative:
    """The most exact negatives that the collection allows, for images of `split`.

    held_out_captions: the setting of that name, for collections of files.
    """
    if any(attributes):
        return synthetic_negatives(attributes, split)
    return word_negatives(captions, () if split == "held_out" else held_out_captions)


def wrong_captions(
    negative: Negative,
    places: Sequence[tuple[int, int]],
    rngs: Sequence[random.Random],
    encode: Encode,
    own_ids: OwnIds,
) -> tuple[list[str], Int[np.ndarray, "n t"]]:
    """A wrong caption for caption `j` of image `i`, for each (i, j), and its ids.

    Without one it is the null caption. Those that differ from the image's own captions only in what
    the ids do not show, such as capitals or the words beyond the context, are made again.
    """
    texts = [negative(*place, rng) or "" for place, rng in zip(places, rngs, strict=True)]
    ids = encode(texts)
    for attempt in range(TRIES + 1):
        alike = [
            at
            for at, (image, _) in enumerate(places)
            if texts[at] and (own_ids(image) == ids[at]).all(axis=1).any()
        ]
        if not alike:
            break
        for at in alike:
            texts[at] = (negative(*places[at], rngs[at]) or "") if attempt < TRIES else ""
        ids[alike] = encode([texts[at] for at in alike])
    return texts, ids

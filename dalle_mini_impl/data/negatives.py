"""Hard negatives for CLIP: captions with one attribute that is wrong for the image.

Synthetic data records what each caption claims, so its negatives are certainly false. In other
collections a word is replaced by one that occurs between the same two neighbors elsewhere: "red
heart" becomes "green heart".
"""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from dalle_mini_impl.data.synthetic.claims import Claims, phrase_claims
from dalle_mini_impl.data.synthetic.panel_captions import Request, phrase_request, wrong_request
from dalle_mini_impl.data.synthetic.panels import Panels
from dalle_mini_impl.data.synthetic.swaps import swap_attribute

Negative = Callable[[int, int, random.Random], str | None]
"""A wrong caption for caption `j` of image `i`, or None where none can be made."""

TRIES = 8


def synthetic_negatives(attributes: Sequence[dict[str, Any] | None]) -> Negative:
    """Negatives from the claims or the request that synthetic data records for each caption."""

    def negative(image: int, caption: int, rng: random.Random) -> str | None:
        known = attributes[image]
        if not known:
            return None
        if "claims" in known:
            claims = Claims.from_dict(known["claims"][caption])
            return phrase_claims(swap_attribute(claims, rng), rng)
        request = Request.from_dict(known["requests"][caption])
        return phrase_request(wrong_request(request, Panels.from_dict(known["panels"]), rng), rng)

    return negative


def word_negatives(captions: Sequence[Sequence[str]]) -> Negative:
    """Negatives that replace one word by another seen between the same two neighbors."""
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
            if word != words[at] and changed not in own:
                return changed
        return None

    return negative


def hard_negatives(
    captions: Sequence[Sequence[str]], attributes: Sequence[dict[str, Any] | None]
) -> Negative:
    """The most exact negatives that the collection allows."""
    return synthetic_negatives(attributes) if any(attributes) else word_negatives(captions)

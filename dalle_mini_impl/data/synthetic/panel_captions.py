"""Captions of images of two panels: what they request, their wording, and hard negatives."""

import random
from dataclasses import dataclass, replace
from typing import Any

from dalle_mini_impl.data.splits import Split
from dalle_mini_impl.data.synthetic.claims import (
    GROUNDS,
    Claims,
    ObjectClaim,
    noun_phrase,
    verify_claims,
)
from dalle_mini_impl.data.synthetic.panels import (
    CHANGE_KINDS,
    Change,
    Panel,
    Panels,
    PanelsConfig,
    apply_change,
    panels_match,
)
from dalle_mini_impl.data.synthetic.scenes import (
    BACKGROUNDS,
    COLORS,
    INVERSE,
    relation_between,
)
from dalle_mini_impl.data.synthetic.shapes import claims_held_out, is_held_out
from dalle_mini_impl.data.synthetic.swaps import swap_attribute

# Wordings are chosen uniformly; a repeated entry is more frequent.
TOP = ("on the top", "at the top", "above")
BOTTOM = ("below", "below", "at the bottom")
SAME = ("the same", "the same", "the exact same")
SCENES = ("scene", "scene", "picture")
HOW = {
    "same": ("", "", " unchanged"),
    "background": ("",),
    "color": (" in {}", " in {}", " all in {}", " painted {}"),
    "mirrored": (" mirrored", " mirrored", " flipped left to right", " as a mirror image"),
    "outline": (" as an outline", " as outlines", " in outline", " drawn as an outline"),
}


@dataclass(frozen=True)
class Request:
    """What a caption says: how the lower half differs, and optionally what the upper one shows."""

    change: Change
    upper: Claims | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "change": self.change.to_dict(),
            "upper": None if self.upper is None else self.upper.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Request":
        upper = values["upper"]
        return cls(Change(**values["change"]), None if upper is None else Claims.from_dict(upper))


def describe_panels(
    panels: Panels, change: Change, index: int, split: Split, config: PanelsConfig
) -> list[tuple[str, Request]]:
    """The image's `captions_per_image` captions, each with its request."""
    rng = random.Random(f"panels/{config.seed}/{split}/{index}/captions")
    requests = [random_request(panels, change, rng) for _ in range(config.captions_per_image)]
    return [(phrase_request(request, rng), request) for request in requests]


def random_request(panels: Panels, change: Change, rng: random.Random) -> Request:
    """The change, usually with true claims about the upper half."""
    return Request(change, _claims_of(panels.upper, rng) if rng.random() < 0.7 else None)


def _claims_of(upper: Panel, rng: random.Random) -> Claims:
    """Every object by color and shape, sometimes their relation and the background."""
    items = rng.sample(upper.objects, len(upper.objects))
    relation = relation_between(*items) if len(items) == 2 and rng.random() < 0.6 else None
    background = upper.background if rng.random() < 0.3 else None
    return Claims(tuple(ObjectClaim(i.shape, i.color) for i in items), relation, background)


def phrase_request(request: Request, rng: random.Random) -> str:
    """A random wording, in lower case, of at most about 30 words."""
    change, upper = request.change, request.upper
    top, bottom, same = rng.choice(TOP), rng.choice(BOTTOM), rng.choice(SAME)
    how = rng.choice(HOW[change.kind]).format(change.color)
    if change.background is not None:
        how += rng.choice(GROUNDS).format(change.background)
    noun = rng.choice(SCENES)
    single = upper.objects[0] if upper is not None and len(upper.objects) == 1 else None
    form = rng.choice(("listed", "listed", "joined", "at once"))
    if form == "at once" and (upper is None or (single is not None and upper.background is None)):
        if single is not None:
            noun = f"{single.color} {single.shape}"
        both = f"{same} {noun} {top}"
        joint = " and" if change.kind in ("same", "background") else ""
        return f"{both}{joint}{how} {bottom}"
    if upper is None:
        first = f"a {noun}"
    else:
        first = noun_phrase(upper, rng)
        if single is not None and rng.random() < 0.5:
            noun = single.shape or noun
    if form == "joined":
        return f"{first} {top} and {bottom} {same} {noun}{how}"
    return f"{first} {top}, {same} {noun} {bottom}{how}"


def fulfills(panels: Panels, request: Request) -> bool:
    """Whether the lower half shows the requested change and the upper half what is claimed."""
    claims_hold = request.upper is None or all(verify_claims(request.upper, panels.upper).values())
    return claims_hold and panels_match(apply_change(request.change, panels.upper), panels.lower)


def wrong_request(request: Request, panels: Panels, rng: random.Random) -> Request:
    """A hard negative: another change or other claims, false of the image."""
    while True:
        if request.upper is not None and rng.random() < 0.3:
            wrong = replace(
                request,
                upper=swap_attribute(request.upper, rng, _random_swap_kind(request.upper, rng)),
            )
        else:
            wrong = replace(request, change=_other_change(request.change, rng))
        if not fulfills(panels, wrong):
            return wrong


def request_held_out(request: Request, panels: Panels) -> bool:
    """Whether it names a composition kept from training, or turns the upper half into one."""
    change, upper = request.change, request.upper
    if is_held_out(apply_change(change, panels.upper)):
        return True
    if upper is None:
        return False
    lower = upper
    if change.kind == "color":
        recolored = tuple(replace(item, color=change.color) for item in upper.objects)
        lower = replace(upper, objects=recolored)
    elif change.kind == "mirrored" and upper.relation in ("left of", "right of"):
        lower = replace(upper, relation=INVERSE[upper.relation])
    return claims_held_out(upper) or claims_held_out(lower)


def _random_swap_kind(claims: Claims, rng: random.Random) -> str:
    kinds = ["color", "shape"]
    kinds += ["relation"] if claims.relation is not None else []
    kinds += ["background"] if claims.background is not None else []
    return rng.choice(kinds)


def _other_change(change: Change, rng: random.Random) -> Change:
    """A change of another kind, or of the same kind to another color or background."""
    kind = rng.choice(CHANGE_KINDS)
    # Half of the wrong captions about a color are about another color.
    if change.kind in ("color", "background") and rng.random() < 0.5:
        kind = change.kind
    background = change.background
    if kind == "background" or (background is not None and rng.random() < 0.3):
        background = rng.choice(tuple(BACKGROUNDS))
    return Change(kind, rng.choice(tuple(COLORS)) if kind == "color" else None, background)

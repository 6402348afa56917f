"""How often a negative caption keeps what it names out of the images, by rule.

    python -m benchmarks.negative runs/shapes --out negative.json

Every caption leaves an attribute open: the background, or the color or size of its object. The same
seeds are sampled with plain guidance, with a negative caption that repeats the caption and names a
value of that attribute, and with one of that value alone. The scenes detector says how many images
show the value, and how many still show the object asked for and nothing else.
"""

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dalle_mini_impl.data.synthetic.claims import Claims, ObjectClaim, verify_claims
from dalle_mini_impl.data.synthetic.scenes import BACKGROUNDS, COLORS, SHAPES, SIZES, Scene
from dalle_mini_impl.evaluation.detectors.scenes import find_scene
from dalle_mini_impl.evaluation.measures.intervals import wilson_interval
from dalle_mini_impl.evaluation.report.page import Table, share
from dalle_mini_impl.images import to_uint8
from dalle_mini_impl.pipeline import TextToImage

Attribute = Literal["background", "color", "size"]
ATTRIBUTES: tuple[Attribute, ...] = ("background", "color", "size")


@dataclass(frozen=True)
class Arguments:
    """Sample with and without negative captions and count what they name."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run on scenes."""
    captions: int = 12
    """Captions for each attribute."""
    images: int = 16
    """Images for each caption."""
    guidance: tuple[float, ...] = (1.5, 3.0)
    """Guidance scales."""
    seed: int = 0
    """Seed of the captions and of the images."""
    device: str | None = None
    """cpu or cuda; the GPU if there is one."""
    out: Path | None = None
    """JSON file to write."""


@dataclass(frozen=True)
class Case:
    """A caption that leaves an attribute open, and negative captions that name a value of it."""

    caption: str
    whole: str
    """The caption with the value."""
    alone: str
    """The value alone."""
    claims: Claims
    """What the caption asks for."""
    attribute: Attribute
    value: str

    def shown_in(self, scene: Scene) -> bool:
        """Whether the scene has the value that the negative captions name."""
        if self.attribute == "background":
            return scene.background == self.value
        return any(getattr(item, self.attribute) == self.value for item in scene.objects)


def random_case(attribute: Attribute, rng: random.Random) -> Case:
    """A caption of one object, and a value of the attribute that it leaves open."""
    shape, color = rng.choice(SHAPES), rng.choice(tuple(COLORS))
    colored = Claims((ObjectClaim(shape, color),))
    caption = _noun(color, shape)
    match attribute:
        case "background":
            value = rng.choice(tuple(BACKGROUNDS))
            alone = f"on a {value} background"
            return Case(caption, f"{caption} {alone}", alone, colored, attribute, value)
        case "color":
            return Case(_noun(shape), caption, color, Claims((ObjectClaim(shape),)), "color", color)
        case "size":
            value = rng.choice(tuple(SIZES))
            whole = f"a {value} {color} {shape}"
            return Case(caption, whole, value, colored, attribute, value)


def _noun(*words: str) -> str:
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


@dataclass
class Count:
    """How many of some images show what the negative caption names, and are right otherwise."""

    images: int = 0
    showing: int = 0
    right: int = 0

    def add(self, case: Case, scene: Scene) -> None:
        """Count one image."""
        self.images += 1
        self.showing += case.shown_in(scene)
        self.right += all(verify_claims(case.claims, scene).values())

    def cells(self) -> list[str]:
        """Both shares with Wilson's 95 % interval."""
        counts = (self.showing, self.right)
        return [share(n / self.images, wilson_interval(n, self.images)) for n in counts]


def measure(
    model: TextToImage, attribute: Attribute, guidance: float, arguments: Arguments
) -> dict[str, Count]:
    """The counts without a negative caption and with each kind."""
    rng = random.Random(f"{arguments.seed}/{attribute}")
    update = {"guidance": guidance, "candidates": arguments.images, "compile": "off"}
    config = model.sampling.model_copy(update=update)
    counts = {kind: Count() for kind in ("none", "whole", "alone")}
    for number in range(arguments.captions):
        case = random_case(attribute, rng)
        negatives = {"none": "", "whole": case.whole, "alone": case.alone}
        for kind, negative in negatives.items():
            seeds = [arguments.seed + number * arguments.images]
            samples = next(model.sample([case.caption], seeds, config, negative=negative))
            for image in to_uint8(samples.pixels):
                counts[kind].add(case, find_scene(image))
    return counts


def main(arguments: Arguments) -> None:
    """Sample, count, print and write."""
    model = TextToImage.from_pretrained(arguments.run, arguments.device)
    rows, figures = [], []
    for attribute in ATTRIBUTES:
        for guidance in arguments.guidance:
            for kind, count in measure(model, attribute, guidance, arguments).items():
                rows.append([attribute, f"{guidance:g}", kind, *count.cells()])
                about = {"attribute": attribute, "guidance": guidance, "negative": kind}
                figures.append({**about, **asdict(count)})
    images = arguments.captions * arguments.images
    columns = ["left open", "guidance", "negative", "images that show it", "right otherwise"]
    note = f"{images} images in each line, with Wilson's 95 % interval."
    print(Table("What a negative caption names", columns, rows, note))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Arguments))

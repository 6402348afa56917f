"""How reliably the scenes detector reads scenes, and that ragged shapes fail its strict grade.

    python -m benchmarks detector --count 5000 [--run DIR]

Scenes are rendered and changed as a good model might change them (blurred, noisy, reconstructed),
which both grades should pass, and as a bad one would, which the strict grade should fail.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageFilter

from benchmarks.record import environment
from dalle_mini_impl.data.synthetic.rendering import render_scene, shape_mask
from dalle_mini_impl.data.synthetic.scenes import BACKGROUNDS, CANVAS, COLORS, SHAPES, Scene
from dalle_mini_impl.data.synthetic.shapes import ShapesConfig, random_scene
from dalle_mini_impl.evaluation.detectors.scenes import CONTRAST, find_scene, is_clean
from dalle_mini_impl.evaluation.measures.intervals import wilson_interval
from dalle_mini_impl.evaluation.report.page import Table, share
from dalle_mini_impl.evaluation.suites.shapes import scene_content
from dalle_mini_impl.images import to_tensor, to_uint8
from dalle_mini_impl.pipeline import TextToImage

Pixels = UInt8[np.ndarray, "h w 3"]
Change = Callable[[Scene, random.Random], Pixels | None]
"""The changed image of a scene; None where the change would not be visible."""

PATCH = 8
"""Side of the patches that ragged images have in the wrong place."""

VISIBLE = 9
"""Pixels that a wrong patch must change for a person to see it."""


@dataclass(frozen=True)
class DetectorOptions:
    """The scenes and what reconstructs them."""

    count: int = 500
    """Scenes of each kind, half of them with held-out compositions."""
    run: Path | None = None
    """Also judge reconstructions by this run's image tokenizer."""
    lattice: int = 1
    """The lattice of the scenes; 1 = objects anywhere."""
    seed: int = 11
    """Seed of the scenes and the changes."""


def run(options: DetectorOptions) -> None:
    """Judge every kind of image and print the table."""
    print(environment(torch.device("cpu"), ["detector"]))
    changes: dict[str, Change] = {
        "plain": lambda scene, rng: rendered(scene),
        "blurred, radius 0.8": lambda scene, rng: blurred(scene, 0.8),
        "blurred, radius 1.2": lambda scene, rng: blurred(scene, 1.2),
        "noisy, sigma 8": noisy,
    }
    if options.run is not None:
        changes["reconstructed"] = reconstruction(options.run)
    changes["a patch of 8 × 8 shifted by 2 to 4 pixels"] = shifted
    changes["a patch of 8 × 8 of another shape"] = pasted
    changes["a block attached to an object"] = attached
    changes["a speck of 3 × 3 pixels"] = specked
    rows = [judged(name, change, options) for name, change in changes.items()]
    columns = ["images", "number", "right", "right by the strict grade"]
    print(Table("Scenes as the detector reads them", columns, rows, "With Wilson's 95 % interval."))


def judged(name: str, change: Change, options: DetectorOptions) -> Sequence[str]:
    """The row of one kind of image."""
    config = ShapesConfig(lattice=options.lattice, seed=options.seed)
    right = strict = count = 0
    for index in range(options.count):
        scene = random_scene(index, "held_out" if index % 2 else "validation", config)
        image = change(scene, random.Random(f"{options.seed}/{name}/{index}"))
        if image is None:
            continue
        found = find_scene(image)
        same = scene_content(found) == scene_content(scene)
        count += 1
        right += same
        strict += same and is_clean(found)
    shares = (share(n / count, wilson_interval(n, count)) for n in (right, strict))
    return [name, f"{count:,}", *shares]


def rendered(scene: Scene) -> Pixels:
    """The scene as it is."""
    return np.asarray(render_scene(scene))


def blurred(scene: Scene, radius: float) -> Pixels:
    """The scene out of focus."""
    return np.asarray(render_scene(scene).filter(ImageFilter.GaussianBlur(radius)))


def noisy(scene: Scene, rng: random.Random) -> Pixels:
    """The scene with Gaussian noise on every value."""
    noise = np.random.default_rng(rng.getrandbits(63)).normal(0, 8, (CANVAS, CANVAS, 3))
    return (rendered(scene) + noise).round().clip(0, 255).astype(np.uint8)


def reconstruction(path: Path) -> Change:
    """What a run's image tokenizer makes of a scene."""
    tokenizer = TextToImage.from_pretrained(path, "cpu").image_tokenizer

    @torch.inference_mode()
    def reconstruct(scene: Scene, rng: random.Random) -> Pixels:
        side = tokenizer.image_size
        pixels = to_tensor([render_scene(scene, side)], side)
        return to_uint8(tokenizer.decode(tokenizer.encode(pixels)))[0]

    return reconstruct


def shifted(scene: Scene, rng: random.Random) -> Pixels | None:
    """A patch of an object that shows what belongs some pixels beside it."""
    image = rendered(scene)
    far = rng.choice((-1, 1)) * rng.randint(2, 4)
    return patched(scene, image, np.roll(image, far, axis=rng.randrange(2)), rng)


def pasted(scene: Scene, rng: random.Random) -> Pixels | None:
    """A patch of an object that shows another shape in the same place."""
    first, *others = scene.objects
    shape = rng.choice([name for name in SHAPES if name != first.shape])
    other = replace(scene, objects=(replace(first, shape=shape), *others))
    return patched(scene, rendered(scene), rendered(other), rng)


def patched(scene: Scene, image: Pixels, source: Pixels, rng: random.Random) -> Pixels | None:
    """The image with a patch of `source` on the first object, where the change is visible."""
    item = scene.objects[0]
    for _ in range(20):
        x, y = (
            min(max(0, rng.randrange(start - PATCH // 2, start + item.side - PATCH // 2)), 56)
            for start in (item.x, item.y)
        )
        box = (slice(y, y + PATCH), slice(x, x + PATCH))
        change = source[box].astype(float) - image[box]
        if ((change**2).sum(-1) > CONTRAST**2).sum() >= VISIBLE:
            changed = image.copy()
            changed[box] = source[box]
            return changed
    return None


def attached(scene: Scene, rng: random.Random) -> Pixels | None:
    """The scene with a block of 3 to 8 pixels in any color that touches an object from outside."""
    image, item = render_scene(scene), scene.objects[0]
    colors = [*COLORS.values(), *BACKGROUNDS.values()]
    colors.remove(BACKGROUNDS[scene.background])
    whole = Image.new("L", (CANVAS, CANVAS))
    whole.paste(shape_mask(item.shape, item.side, item.side), (item.x, item.y))
    cover = np.asarray(whole)
    free = (np.asarray(image) == BACKGROUNDS[scene.background]).all(-1) | (cover > 0)
    for _ in range(200):
        width, height = rng.randint(3, 8), rng.randint(3, 8)
        x, y = (
            min(max(1, rng.randint(start - extent, start + item.side)), CANVAS - 1 - extent)
            for start, extent in ((item.x, width), (item.y, height))
        )
        down, across = slice(y, y + height), slice(x, x + width)
        around = cover[y - 1 : y + height + 1, across], cover[down, x - 1 : x + width + 1]
        outside = free[down, across].all() and cover[down, across].max() < 128
        if outside and max(part.max() for part in around) >= 128:
            image.paste(rng.choice(colors), (x, y, x + width, y + height))
            return np.asarray(image)
    return None


def specked(scene: Scene, rng: random.Random) -> Pixels | None:
    """The scene with a small square of a color on its background."""
    image = render_scene(scene)
    for _ in range(20):
        x, y = rng.randrange(CANVAS - 3), rng.randrange(CANVAS - 3)
        around = np.asarray(image.crop((x - 2, y - 2, x + 5, y + 5)).resize((7, 7)))
        if (around == BACKGROUNDS[scene.background]).all():
            image.paste(rng.choice(list(COLORS.values())), (x, y, x + 3, y + 3))
            return np.asarray(image)
    return None

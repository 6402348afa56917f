"""The prompt suite: GenEval's six tasks, background and size, each seen and held out.

Tasks after Ghosh et al. 2023, "GenEval" (arXiv 2310.11513), judged by rule on shapes scenes.
"""

import random
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from dalle_mini_impl.data.synthetic.claims import (
    Claims,
    ObjectClaim,
    phrase_claims,
    random_claims,
    verify_claims,
)
from dalle_mini_impl.data.synthetic.scenes import Scene, relation_between
from dalle_mini_impl.data.synthetic.shapes import (
    ShapesConfig,
    claims_held_out,
    compose_scene,
    random_scene,
)
from dalle_mini_impl.evaluation.judges.scenes import find_scene

Half = Literal["seen", "held_out"]

HALVES: tuple[Half, ...] = ("seen", "held_out")

SPLITS: dict[Half, Literal["validation", "held_out"]] = {
    "seen": "validation",
    "held_out": "held_out",
}

# Every caption names shapes and colors, as the collection's do; a task scores only its own kinds.
TASKS: dict[str, tuple[str, ...]] = {
    "single object": ("object", "count"),
    "color": ("object", "color"),
    "two objects": ("object", "count"),
    "counting": ("object", "count"),
    "position": ("object", "relation"),
    "binding": ("object", "color"),
    "background": ("object", "background"),
    "size": ("object", "size"),
}
"""The kinds of claim that decide each task."""


@dataclass(frozen=True)
class Prompt:
    """A caption with its claims; `objects` is how many objects it asks for in all.

    `task` is one of TASKS, or "scene" for the caption of a drawn scene.
    """

    task: str
    caption: str
    claims: Claims
    half: Half
    objects: int


def judge(image: UInt8[np.ndarray, "h w 3"], claims: Claims) -> dict[str, bool]:
    """Which kinds of the claims are true of an image (see `verify_claims`)."""
    return verify_claims(claims, find_scene(image))


def solved(prompt: Prompt, truth: dict[str, bool]) -> bool:
    """Whether the judged truth passes the prompt's task; for "scene", all its claims."""
    return all(truth[kind] for kind in TASKS.get(prompt.task, tuple(truth)))


def suite(config: ShapesConfig, per_task: int = 100, seed: int = 0) -> list[Prompt]:
    """`per_task` prompts for each task and half, in the order of TASKS, as distinct as can be.

    Tasks that need more objects than `config.max_objects` are left out. A held-out prompt names
    a composition that training never shows; a seen one names none.
    """
    prompts: list[Prompt] = []
    for task in TASKS:
        if _objects_of(task, 0, 1) > config.max_objects:
            continue
        for half in HALVES:
            rng = random.Random(f"suite/{seed}/{task}/{half}")
            used: set[str] = set()
            for at in range(per_task):
                objects = _objects_of(task, at, config.max_objects)
                for _ in range(50):
                    claims = _task_claims(task, objects, half, config, rng)
                    caption = phrase_claims(claims, rng)
                    if caption not in used:
                        break
                used.add(caption)
                prompts.append(Prompt(task, caption, claims, half, objects))
    return prompts


def scene_prompts(
    config: ShapesConfig, half: Half, objects: int, count: int, seed: int = 0
) -> list[Prompt]:
    """Captions of `count` freshly drawn scenes with exactly `objects` objects.

    They are worded as the collection's captions are. In the held-out half every caption names
    a held-out composition itself, so none is solved by a scene that training could show.
    Raises ValueError unless `objects` is within 1 and `config.max_objects`.
    """
    if not 1 <= objects <= config.max_objects:
        raise ValueError(
            f"objects is {objects}, the scenes have 1 to {config.max_objects} (max_objects)"
        )
    shares = [0.0, 0.0, 0.0]
    shares[objects - 1] = 1.0
    fresh = random.Random(f"prompts/{config.seed}/{seed}").getrandbits(31)
    only = config.model_copy(update={"object_shares": tuple(shares), "seed": fresh})
    prompts: list[Prompt] = []
    index = 0
    while len(prompts) < count:
        scene = random_scene(index, SPLITS[half], only)
        rng = random.Random(f"captions/{fresh}/{half}/{objects}/{index}")
        index += 1
        claims = random_claims(scene, rng)
        for _ in range(20):
            if claims_held_out(claims) == (half == "held_out"):
                prompts.append(Prompt("scene", phrase_claims(claims, rng), claims, half, objects))
                break
            claims = random_claims(scene, rng)
    return prompts


def interval(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a share, 95 % by default; (0, 1) for no trials."""
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    middle = share + z * z / (2 * n)
    spread = z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    scale = 1 + z * z / n
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def _objects_of(task: str, at: int, most: int) -> int:
    """How many objects prompt number `at` of a task asks for; counting alternates two and three."""
    if task == "counting":
        return 2 + at % 2 if most >= 3 else 2
    return 2 if task in ("two objects", "position", "binding") else 1


def _task_claims(
    task: str, objects: int, half: Half, config: ShapesConfig, rng: random.Random
) -> Claims:
    """Claims of the task's form about a scene of the half."""
    while True:
        identical = task == "counting"
        scene = compose_scene(rng, objects, SPLITS[half], config.lattice, identical)
        claims = _form(task, scene, rng)
        if claims is not None and claims_held_out(claims) == (half == "held_out"):
            return claims


def _form(task: str, scene: Scene, rng: random.Random) -> Claims | None:
    """What the task says of the scene; None where the scene does not lend itself to it."""
    items = rng.sample(scene.objects, len(scene.objects))
    if task == "counting":
        first = items[0]
        return Claims((ObjectClaim(first.shape, first.color, None, len(items)),))
    size = task == "size" or (task == "single object" and rng.random() < 0.5)
    named = tuple(ObjectClaim(i.shape, i.color, i.size if size else None) for i in items)
    if task == "position":
        relation = relation_between(items[0], items[1])
        return Claims(named, relation) if relation and items[0].shape != items[1].shape else None
    if task == "background":
        return Claims(named, background=scene.background)
    if task == "binding" and (items[0].shape == items[1].shape or items[0].color == items[1].color):
        return None
    return Claims(named)

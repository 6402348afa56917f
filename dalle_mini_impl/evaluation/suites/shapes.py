"""The shapes suite: GenEval's six tasks, background and size, and captions of whole scenes.

Tasks after Ghosh et al. 2023, "GenEval" (arXiv 2310.11513), judged by rule on shapes scenes.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import UInt8

from dalle_mini_impl.data.synthetic.claims import (
    Claims,
    ObjectClaim,
    phrase_claims,
    random_claims,
    verify_claims,
)
from dalle_mini_impl.data.synthetic.rendering import render_scene
from dalle_mini_impl.data.synthetic.scenes import Scene, relation_between
from dalle_mini_impl.data.synthetic.shapes import (
    ShapesConfig,
    claims_held_out,
    compose_scene,
    describe_scene,
    random_scene,
)
from dalle_mini_impl.evaluation.detectors.scenes import find_scene, is_clean
from dalle_mini_impl.evaluation.suites.core import (
    DATA_SPLITS,
    SPLITS,
    Judgment,
    Split,
    SuitePrompt,
)
from dalle_mini_impl.evaluation.suites.reconstructions import Original

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

ALL_TASKS = "all tasks"
"""The group of every task's prompts."""

SCENES = ("scene of one object", "scene of two objects", "scene of three objects")
"""The groups of captions of whole scenes, by the number of objects."""


@dataclass(frozen=True)
class ShapesPrompt(SuitePrompt):
    """A caption with its claims."""

    claims: Claims
    objects: int
    """How many objects it asks for in all."""
    task: str | None = None
    """One of TASKS; None for the caption of a whole scene."""

    @property
    def groups(self) -> tuple[str, ...]:
        return (SCENES[self.objects - 1],) if self.task is None else (self.task, ALL_TASKS)

    def judge(self, image: UInt8[np.ndarray, "h w 3"]) -> Judgment:
        scene = find_scene(image)
        objects = [f"{item.size} {item.color} {item.shape}" for item in scene.objects]
        seen = f"{', '.join(objects) or 'nothing'} on {scene.background}"
        return Judgment(verify_claims(self.claims, scene), is_clean(scene), seen)

    def scores(self, correct: dict[str, bool], clean: bool) -> dict[str, bool]:
        """The prompt's task, if it has one, besides all claims and each kind."""
        scores = super().scores(correct, clean)
        if self.task is None:
            return scores
        return {"task": all(correct[kind] for kind in TASKS[self.task]), **scores}

    def details(self) -> dict[str, Any]:
        return {"claims": self.claims.to_dict()}


def shapes_prompts(config: ShapesConfig, per_task: int = 100, seed: int = 0) -> list[ShapesPrompt]:
    """The tasks' prompts, then captions of scenes with one object, two, three."""
    prompts = task_prompts(config, per_task, seed)
    for objects in range(1, config.max_objects + 1):
        for split in SPLITS:
            prompts += scene_prompts(config, split, objects, per_task, seed)
    return prompts


def task_prompts(config: ShapesConfig, per_task: int = 100, seed: int = 0) -> list[ShapesPrompt]:
    """`per_task` prompts for each task and split, in the order of TASKS, as distinct as possible.

    Tasks that need more objects than `config.max_objects` are left out. A held-out prompt names
    a composition that training never shows; a seen one names none.
    """
    prompts: list[ShapesPrompt] = []
    for task in TASKS:
        if _objects_of(task, 0, 1) > config.max_objects:
            continue
        for split in SPLITS:
            rng = random.Random(f"suite/{seed}/{task}/{split}")
            used: set[str] = set()
            for at in range(per_task):
                objects = _objects_of(task, at, config.max_objects)
                for _ in range(50):
                    claims = _task_claims(task, objects, split, config, rng)
                    caption = phrase_claims(claims, rng)
                    if caption not in used:
                        break
                used.add(caption)
                prompts.append(ShapesPrompt(caption, split, claims, objects, task))
    return prompts


def scene_prompts(
    config: ShapesConfig, split: Split, objects: int, count: int, seed: int = 0
) -> list[ShapesPrompt]:
    """Captions of `count` random scenes with exactly `objects` objects.

    They are worded as the collection's captions are. Every held-out caption names a held-out
    composition itself, so that no scene that training could show fulfills it.
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
    prompts: list[ShapesPrompt] = []
    index = 0
    while len(prompts) < count:
        scene = random_scene(index, DATA_SPLITS[split], only)
        rng = random.Random(f"captions/{fresh}/{split}/{objects}/{index}")
        index += 1
        claims = random_claims(scene, rng)
        for _ in range(20):
            if claims_held_out(claims) == (split == "held_out"):
                prompts.append(ShapesPrompt(phrase_claims(claims, rng), split, claims, objects))
                break
            claims = random_claims(scene, rng)
    return prompts


def _objects_of(task: str, at: int, most: int) -> int:
    """How many objects prompt number `at` of a task asks for; counting alternates two and three."""
    if task == "counting":
        return 2 + at % 2 if most >= 3 else 2
    return 2 if task in ("two objects", "position", "binding") else 1


def _task_claims(
    task: str, objects: int, split: Split, config: ShapesConfig, rng: random.Random
) -> Claims:
    """Claims in the task's form about a random scene of the split."""
    while True:
        identical = task == "counting"
        scene = compose_scene(rng, objects, DATA_SPLITS[split], config.lattice, identical)
        claims = _claims_in_form(task, scene, rng)
        if claims is not None and claims_held_out(claims) == (split == "held_out"):
            return claims


def _claims_in_form(task: str, scene: Scene, rng: random.Random) -> Claims | None:
    """What the task claims of the scene; None where the scene does not fit the task."""
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


def shapes_originals(config: ShapesConfig, per_split: int, image_size: int) -> Iterator[Original]:
    """`per_split` unseen scenes of each split, to be reconstructed.

    Scores: "claims", all claims of all captions hold; "scene", the shape, color and size of each
    object and the background are as rendered; "scene, strict", they are and the shapes are clean.
    """
    for split in SPLITS:
        for index in range(per_split):
            scene = random_scene(index, DATA_SPLITS[split], config)
            captions = describe_scene(scene, index, DATA_SPLITS[split], config)
            judge = partial(_judge_scene, scene, [claims for _, claims in captions])
            yield Original(split, render_scene(scene, image_size), judge)


def _judge_scene(
    scene: Scene, claims: Sequence[Claims], image: UInt8[np.ndarray, "h w 3"]
) -> dict[str, bool]:
    seen = find_scene(image)
    same = scene_content(seen) == scene_content(scene)
    return {
        "claims": all(all(verify_claims(own, seen).values()) for own in claims),
        "scene": same,
        "scene, strict": same and is_clean(seen),
    }


def scene_content(scene: Scene) -> tuple[list[tuple[str, str, str]], str]:
    """The shape, color and size of each object, and the background."""
    return sorted((o.shape, o.color, o.size) for o in scene.objects), scene.background

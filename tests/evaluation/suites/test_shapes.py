"""The shapes suite: its tasks and splits, and what passes them."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from dalle_mini_impl.data.synthetic.rendering import render_scene
from dalle_mini_impl.data.synthetic.scenes import Object, Scene
from dalle_mini_impl.data.synthetic.shapes import ShapesConfig, claims_held_out
from dalle_mini_impl.evaluation.suites.core import SPLITS
from dalle_mini_impl.evaluation.suites.shapes import (
    TASKS,
    scene_prompts,
    shapes_originals,
    task_prompts,
)


@pytest.fixture(scope="module")
def prompts():
    return task_prompts(ShapesConfig(), per_task=24, seed=1)


def test_every_task_has_both_splits(prompts):
    counts = Counter((prompt.task, prompt.split) for prompt in prompts)
    assert counts == {(task, split): 24 for task in TASKS for split in SPLITS}
    assert task_prompts(ShapesConfig(), per_task=24, seed=1) == prompts
    assert task_prompts(ShapesConfig(), per_task=24, seed=2) != prompts


def test_splits_differ_by_what_training_shows(prompts):
    for prompt in prompts:
        assert claims_held_out(prompt.claims) == (prompt.split == "held_out")


def test_prompts_ask_what_their_task_scores(prompts):
    for prompt in prompts:
        first = prompt.claims.objects[0]
        assert prompt.objects == sum(item.count for item in prompt.claims.objects)
        assert (prompt.claims.relation is not None) == (prompt.task == "position")
        assert (prompt.claims.background is not None) == (prompt.task == "background")
        assert (first.count > 1) == (prompt.task == "counting")
        if prompt.task == "size":
            assert first.size
    for task in ("binding", "position", "two objects"):
        assert len({prompt.caption for prompt in prompts if prompt.task == task}) == 2 * 24


def test_a_collection_of_single_objects_gets_single_object_tasks():
    tasks = {prompt.task for prompt in task_prompts(ShapesConfig(max_objects=1), per_task=2)}
    assert tasks == {"single object", "color", "background", "size"}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("objects", [1, 2, 3])
def test_scene_prompts_have_the_number_and_split_asked_for(split, objects):
    prompts = scene_prompts(ShapesConfig(), split, objects, 40)
    assert len(prompts) == 40
    assert {prompt.objects for prompt in prompts} == {objects}
    assert all(claims_held_out(prompt.claims) == (split == "held_out") for prompt in prompts)
    assert prompts == scene_prompts(ShapesConfig(), split, objects, 40)
    assert prompts != scene_prompts(ShapesConfig(), split, objects, 40, seed=1)


def test_more_objects_than_the_collection_has_are_refused():
    with pytest.raises(ValueError, match="max_objects"):
        scene_prompts(ShapesConfig(max_objects=2), "seen", 3, 5)


def test_images_pass_the_prompts_that_they_show(prompts):
    """An image rendered to its claims passes; in another color it fails the color task only."""
    for prompt in [p for p in prompts if p.task in ("color", "size", "background")][::6]:
        claim = prompt.claims.objects[0]
        side = 24 if claim.size == "large" else 16
        item = Object(claim.shape, claim.color, side, 24, 16)
        scene = Scene((item,), prompt.claims.background or "white")
        right = prompt.judge(np.asarray(render_scene(scene)))
        assert all(right.correct.values())
        assert right.seen == f"{item.size} {item.color} {item.shape} on {scene.background}"
        assert right.clean
        assert prompt.scores(right.correct, clean=True)["task"]
        other = replace(item, color="cyan" if claim.color != "cyan" else "red")
        wrong = prompt.judge(np.asarray(render_scene(Scene((other,), scene.background)))).correct
        assert wrong["color"] is False
        scores = prompt.scores(wrong, clean=True)
        assert not scores["all claims"]
        assert scores["task"] == (prompt.task != "color")


def test_a_scene_prompt_has_no_task():
    prompt = scene_prompts(ShapesConfig(), "seen", 1, 1)[0]
    assert prompt.groups == ("scene of one object",)
    assert prompt.scores({"object": True, "count": False}, clean=True) == {
        "all claims": False, "all claims, strict": False, "object": True, "count": False,
    }  # fmt: skip


def test_originals_pass_their_own_scores_and_not_those_of_another_scene():
    originals = list(shapes_originals(ShapesConfig(), 3, 64))
    assert [original.split for original in originals] == ["seen"] * 3 + ["held_out"] * 3
    for at, original in enumerate(originals):
        assert original.judge(np.asarray(original.image)) == {
            "claims": True, "scene": True, "scene, strict": True,
        }  # fmt: skip
        other = np.asarray(originals[at - 1].image)
        assert original.judge(other) == dict.fromkeys(("claims", "scene", "scene, strict"), False)

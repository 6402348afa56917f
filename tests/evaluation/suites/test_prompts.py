"""The prompt suite: its tasks and halves, and what counts as solved."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from dalle_mini_impl.data.synthetic.rendering import render_scene
from dalle_mini_impl.data.synthetic.scenes import Object, Scene
from dalle_mini_impl.data.synthetic.shapes import ShapesConfig, claims_held_out
from dalle_mini_impl.evaluation.suites.prompts import (
    HALVES,
    TASKS,
    interval,
    judge,
    scene_prompts,
    solved,
    suite,
)


@pytest.fixture(scope="module")
def prompts():
    return suite(ShapesConfig(), per_task=24, seed=1)


def test_every_task_has_both_halves(prompts):
    counts = Counter((prompt.task, prompt.half) for prompt in prompts)
    assert counts == {(task, half): 24 for task in TASKS for half in HALVES}
    assert suite(ShapesConfig(), per_task=24, seed=1) == prompts
    assert suite(ShapesConfig(), per_task=24, seed=2) != prompts


def test_halves_differ_by_what_training_shows(prompts):
    for prompt in prompts:
        assert claims_held_out(prompt.claims) == (prompt.half == "held_out")


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
    tasks = {prompt.task for prompt in suite(ShapesConfig(max_objects=1), per_task=2)}
    assert tasks == {"single object", "color", "background", "size"}


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("objects", [1, 2, 3])
def test_scene_prompts_have_the_number_and_half_asked_for(half, objects):
    prompts = scene_prompts(ShapesConfig(), half, objects, 40)
    assert len(prompts) == 40
    assert {prompt.objects for prompt in prompts} == {objects}
    assert all(claims_held_out(prompt.claims) == (half == "held_out") for prompt in prompts)
    assert prompts == scene_prompts(ShapesConfig(), half, objects, 40)
    assert prompts != scene_prompts(ShapesConfig(), half, objects, 40, seed=1)


def test_more_objects_than_the_collection_has_are_refused():
    with pytest.raises(ValueError, match="max_objects"):
        scene_prompts(ShapesConfig(max_objects=2), "seen", 3, 5)


def test_images_solve_the_prompts_that_they_show(prompts):
    """Drawn to its claims an image passes; in another color it fails the color task only."""
    for prompt in [p for p in prompts if p.task in ("color", "size", "background")][::6]:
        claim = prompt.claims.objects[0]
        item = Object(claim.shape, claim.color, claim.size or "small", 24, 16)
        scene = Scene((item,), prompt.claims.background or "white")
        truth = judge(np.asarray(render_scene(scene)), prompt.claims)
        assert all(truth.values())
        assert solved(prompt, truth)
        other = "cyan" if claim.color != "cyan" else "red"
        wrong = judge(
            np.asarray(render_scene(Scene((replace(item, color=other),), scene.background))),
            prompt.claims,
        )
        assert wrong["color"] is False
        assert solved(prompt, wrong) == (prompt.task != "color")


def test_a_scene_prompt_needs_all_its_claims():
    prompt = scene_prompts(ShapesConfig(), "seen", 1, 1)[0]
    assert solved(prompt, {"object": True, "count": True, "color": True})
    assert not solved(prompt, {"object": True, "count": False, "color": True})


def test_interval_is_wilsons():
    low, high = interval(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.49, 0.943)
    assert interval(0, 0) == (0.0, 1.0)
    assert interval(10, 10)[1] == pytest.approx(1.0)
    assert interval(0, 50)[0] == 0.0

"""Prompts: their weights, and the score that they give images."""

import math

import pytest
import torch

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.retrieval.encoder import RunClip
from dalle_mini_impl.vqgan_clip.objective import Objective
from dalle_mini_impl.vqgan_clip.optimize import optimize
from dalle_mini_impl.vqgan_clip.prompts import (
    PromptScore,
    WeightedPrompt,
    parse_prompt,
    spherical_distance,
)
from tests.color_run import color_run, patch
from tests.vqgan_clip.toy import QUICK, decode, seeded


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return color_run(tmp_path_factory.mktemp("runs") / "colors")


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("a heart", WeightedPrompt("a heart", 1.0)),
        ("a heart:2.5", WeightedPrompt("a heart", 2.5)),
        ("blur : -0.5", WeightedPrompt("blur", -0.5)),
        ("title: a heart", WeightedPrompt("title: a heart", 1.0)),
        ("at 12:30:1", WeightedPrompt("at 12:30", 1.0)),
        ("C:\\a.png", WeightedPrompt("C:\\a.png", 1.0)),
    ],
)
def test_prompts_carry_weights(text, prompt):
    assert parse_prompt(text) == prompt


@pytest.mark.parametrize("text", ["a heart:0", ":1", "x:nan", "x:inf"])
def test_weights_without_a_meaning_are_refused(text):
    with pytest.raises(ConfigError, match="not zero"):
        parse_prompt(text)


def test_spherical_distance_is_half_the_squared_angle():
    angles = torch.tensor([0.0, 0.3, 1.0, math.pi / 2, 3.0])
    points = torch.stack((angles.cos(), angles.sin()), dim=1).requires_grad_()
    distances = spherical_distance(points, torch.tensor([[1.0, 0.0]]))[:, 0]
    torch.testing.assert_close(distances, angles.square() / 2, atol=1e-4, rtol=1e-4)
    distances.sum().backward()
    assert points.grad.isfinite().all()


def test_images_move_towards_prompts_and_away_from_negative_ones(run):
    clip = RunClip.from_run(run, "cpu")
    flat = torch.full((1, 3, 4, 4), 0.0)
    texts = {name: clip.encode_texts([f"a picture of a {name}"])[0] for name in ("red", "blue")}

    def reached(*prompts: WeightedPrompt, image_prompts=()):
        score = PromptScore.of(clip, prompts, image_prompts)
        images = optimize(Objective(decode, score, size=32), flat, QUICK, seeded()).images
        vector = clip.encode_images(torch.nn.functional.interpolate(images, (32, 32)))[0]
        return {name: float(vector @ text) for name, text in texts.items()}

    red, blue = WeightedPrompt("a picture of a red"), WeightedPrompt("a picture of a blue")
    towards, away = reached(red), reached(WeightedPrompt(red.target, -1.0))
    assert towards["red"] > away["red"] + 0.2
    assert reached(blue)["blue"] > towards["blue"] + 0.2
    against = reached(blue, WeightedPrompt(red.target, -1.0))
    assert against["blue"] - against["red"] > towards["blue"] - towards["red"]
    by_image = reached(image_prompts=[(patch("blue"), 1.0)])
    assert by_image["blue"] > by_image["red"]
    with pytest.raises(ConfigError, match="at least one text or image"):
        PromptScore.of(clip, [])

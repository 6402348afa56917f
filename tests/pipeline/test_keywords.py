"""The keywords of TextToImage are those of SamplingConfig, and wrong ones are refused."""

import inspect
from typing import get_type_hints

import pytest

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.pipeline.keywords import CallKeywords, SamplingKeywords, changed_sampling
from dalle_mini_impl.sampling.config import SamplingConfig


def test_editors_are_offered_the_fields_of_sampling_config():
    fields = {name: field.annotation for name, field in SamplingConfig.model_fields.items()}
    assert get_type_hints(SamplingKeywords) == fields


def test_editors_are_offered_every_other_keyword():
    explicit = inspect.signature(TextToImage.__call__).parameters.keys()
    own = CallKeywords.__annotations__.keys() - SamplingKeywords.__annotations__.keys()
    assert own | {"self", "caption", "given", "settings"} == set(explicit)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("guidence", "guidance"),
        ("guidance_scale", "guidance"),
        ("negative_prompt", "negative"),
        ("num_image", "num_images"),
        ("num_images_per_prompt", "num_images"),
    ],
)
def test_a_wrong_name_is_refused_with_the_right_one(wrong, right):
    with pytest.raises(TypeError, match=f"'{wrong}'; did you mean {right}\\?"):
        changed_sampling(SamplingConfig(), {wrong: 1})


def test_a_name_like_no_other_is_answered_with_all():
    with pytest.raises(TypeError, match="there are num_images, candidates, guidance"):
        changed_sampling(SamplingConfig(), {"xyz": 1})


def test_a_wrong_value_is_refused_with_its_meaning():
    with pytest.raises(ConfigError, match=r"guidance = -1: should be greater .*Guidance scale"):
        changed_sampling(SamplingConfig(), {"guidance": -1})


def test_there_are_as_many_candidates_as_images():
    changed = changed_sampling(SamplingConfig(candidates=2), {"num_images": 5})
    assert (changed.num_images, changed.candidates) == (5, 5)

"""Wrong data settings are refused, and importing the configuration is cheap."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from dalle_mini_impl.data.config import DataConfig


@pytest.mark.parametrize(
    "settings",
    [
        {"templates": ("a photo",)},
        {"held_out_captions": ("(",)},
        {"held_out": 1.0},
        {"random_resized_crop": 0.0},
        {"image_columm": "image"},
    ],
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        DataConfig(**settings)


def test_importing_the_configuration_is_cheap():
    code = (
        "import sys, dalle_mini_impl.data.config;"
        "print([m for m in ('torch', 'datasets') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_panels_need_an_even_size():
    with pytest.raises(ValueError, match="use 64"):
        DataConfig(path="panels", image_size=63)

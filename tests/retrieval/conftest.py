"""The run and the folder of images that the tests of retrieval share."""

import pytest

from dalle_mini_impl.retrieval.encoder import RunClip
from tests.color_run import COLORS, color_run, patch


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return color_run(tmp_path_factory.mktemp("runs") / "colors")


@pytest.fixture
def clip(run):
    return RunClip.from_run(run, "cpu")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "images"
    (made / "deep").mkdir(parents=True)
    for name in COLORS:
        patch(name).save(made / ("deep" if name == "red" else "") / f"{name}.png")
    return made

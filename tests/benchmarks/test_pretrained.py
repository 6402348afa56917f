"""A model is packaged with a card that says how it was made and how good it is."""

import pytest

from benchmarks import pretrained
from dalle_mini_impl.experiment import Experiment, field_paths
from dalle_mini_impl.runs.named import find_run, pretrained_names
from dalle_mini_impl.shipped import folders
from tests.tiny import tiny_run


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_model_is_packaged_with_its_card(tmp_path, monkeypatch, as_zip):
    run = tiny_run(tmp_path / "run")
    monkeypatch.setattr(pretrained, "PACKAGED", tmp_path / "package" / "pretrained")
    monkeypatch.setattr(folders, "PACKAGE", tmp_path / "package")
    for earlier in (not as_zip, as_zip):
        pretrained.package(run, "emoji", "one object 100 %", earlier)
    assert pretrained_names() == ["emoji"]
    found = find_run("emoji")
    text = (found.path / "README.md").read_text(encoding="utf-8")
    assert "python -m benchmarks.pretrained emoji" in text
    assert f"\ndalle train emoji {pretrained.TRAINING['emoji']}\n" in text
    assert "one object 100 %" in text


def test_the_options_of_training_exist():
    known = {f"--{path.replace('_', '-')}" for path in field_paths(Experiment)}
    for options in pretrained.TRAINING.values():
        assert {word for word in options.split() if word.startswith("--")} <= known

"""Configurations are found by name, and wrong names say which there are."""

import pytest

from dalle_mini_impl.captions import find_vocabulary
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.experiment import load_experiment
from dalle_mini_impl.shipped import folders
from dalle_mini_impl.shipped.commands import command
from dalle_mini_impl.shipped.folders import config_names, find_config, shipped

ROOT = folders.PACKAGE.parent


def test_a_configuration_has_its_name_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_names() == sorted(file.stem for file in (ROOT / "configs").glob("*.yaml"))
    assert load_experiment("shapes") == load_experiment(ROOT / "configs" / "shapes.yaml")
    assert find_vocabulary("emoji") == ROOT / "tokenizers" / "emoji.json"


def test_a_file_comes_before_a_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shapes").write_text("transformer: {depth: 7}\n", encoding="utf-8")
    assert load_experiment("shapes").transformer.depth == 7


@pytest.mark.parametrize("wrong", ["shape", "shape.yaml", "configs/shape.yaml"])
def test_a_wrong_name_gets_a_suggestion(wrong):
    with pytest.raises(ConfigError, match=rf"{wrong}: not a readable.*did you mean shapes\?"):
        load_experiment(wrong)
    with pytest.raises(ConfigError, match=r"zzz.*shipped configurations: cifar10, .*shapes"):
        load_experiment("zzz")


def test_a_wheel_carries_the_folders_inside_the_package(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "only.yaml").write_text("")
    monkeypatch.setattr(folders, "PACKAGE", tmp_path)
    assert config_names() == ["only"]
    assert find_config("only") == tmp_path / "configs" / "only.yaml"
    assert shipped("tokenizers") == tmp_path.parent / "tokenizers"


def test_hints_name_commands_that_exist_where_they_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert command("train") == "python train.py"
    monkeypatch.chdir(tmp_path)
    assert command("train") == "dalle train"
    (tmp_path / "train.py").touch()  # somebody else's
    assert command("train") == "dalle train"

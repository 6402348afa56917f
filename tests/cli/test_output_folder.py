"""Samples go to a fresh folder or replace earlier ones, and other commands understand them."""

import json

import pytest
from PIL import Image

from dalle_mini_impl.cli import main
from dalle_mini_impl.cli.output_folder import clear_listed, output_folder
from tests.tiny import tiny_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("runs") / "tiny")


def sample(run, *options):
    given = ["sample", "a red star", "--run", str(run.path), "--device", "cpu", *options]
    assert main(given) == 0


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_without_out_every_command_gets_a_new_numbered_folder(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "0007").mkdir(parents=True)
    (tmp_path / "outputs" / "mine").mkdir()
    for number in ("0008", "0009"):
        sample(run, "--num-images", "1")
        assert f"{number}" in capsys.readouterr().out
        assert names(tmp_path / "outputs" / number) == ["00-00.png", "samples.json", "sheet.png"]


def test_a_given_folder_loses_earlier_samples_and_nothing_else(run, tmp_path):
    out = tmp_path / "out"
    sample(run, "--num-images", "3", "--out", str(out))
    Image.new("RGB", (4, 4)).save(out / "mine.png")
    (out / "notes.txt").write_text("keep")
    sample(run, "--num-images", "1", "--out", str(out))
    assert names(out) == ["00-00.png", "mine.png", "notes.txt", "samples.json", "sheet.png"]


def test_a_list_that_is_not_ours_is_left_alone(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "red.png")
    (tmp_path / "samples.json").write_text('[{"file": "red.png"}]')
    clear_listed(tmp_path / "samples.json")
    assert output_folder(tmp_path) == tmp_path
    assert names(tmp_path) == ["red.png", "samples.json"]


def test_other_commands_understand_the_folder_of_samples(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        sample(run, "--num-images", "2")
    capsys.readouterr()

    assert main(["data", "check", "outputs", "--data.held-out", "0"]) == 0
    report = capsys.readouterr().out
    assert "4 (4 train)" in report
    assert "'a red star' (4)" in report

    options = ["--run", str(run.path), "--device", "cpu"]
    assert main(["index", "outputs", *options]) == 0
    assert "4 added" in capsys.readouterr().out
    assert main(["search", "a red star", "--json", *options]) == 0
    found = json.loads(capsys.readouterr().out)["images"]
    assert {row["caption"] for row in found} == {"a red star"}
    assert len(found) == 4

    assert main(["rerank", "a red star", "outputs", "--json", *options]) == 0
    ranked = json.loads(capsys.readouterr().out)["images"]
    assert {row["image"] for row in ranked} == {
        f"outputs/000{folder}/00-0{place}.png" for folder in (1, 2) for place in (0, 1)
    }

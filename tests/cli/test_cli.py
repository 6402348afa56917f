"""The `dalle` command: commands are found, and mistakes are reported in one line."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from dalle_mini_impl.cli import COMMANDS, main
from dalle_mini_impl.training.nonfinite import NonFiniteLoss
from tests.tiny import tiny_run

ROOT = Path(__file__).resolve().parents[2]
STAGES = "dalle_mini_impl.training.run_stages"


def python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True)


def test_help_lists_the_commands_without_importing_torch(tmp_path):
    code = (
        "import sys; from dalle_mini_impl.cli import main; main(['--help'])\n"
        "print(sorted({'torch', 'datasets', 'pydantic', 'tyro'} & sys.modules.keys()))"
    )
    result = python("-c", code)
    assert result.stdout.splitlines()[-1] == "[]"
    assert all(f"  {name} " in result.stdout for name in COMMANDS)


def test_importing_the_package_takes_no_action(tmp_path):
    code = "import sys, dalle_mini_impl; assert 'torch' not in sys.modules"
    result = python("-c", code, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_version_and_unknown_commands(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dalle-mini-impl ")
    assert main(["trian"]) == 2
    assert "dalle trian: no such command; did you mean train?" in capsys.readouterr().err
    assert main(["xyz"]) == 2
    assert "there are train, sample" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_standard_output_on_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "dalle_mini_impl", "--help"]
        result = subprocess.run(
            command,
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": ""},
        )
    assert result.returncode == 2
    assert result.stderr.startswith("standard output: the disk is full")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("script", ["train.py", "sample.py"])
def test_the_scripts_run_their_commands(script):
    result = python(script, "--help")
    assert result.returncode == 0
    assert script.removesuffix(".py") in result.stdout


def test_a_mistake_is_reported_without_a_traceback():
    result = python("train.py", "configs/shape.yaml")
    assert result.returncode == 2
    assert "configs/shape.yaml: not a readable file" in result.stderr
    assert "did you mean shapes?" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_error_of_the_program_keeps_its_traceback(stage_calls, monkeypatch):
    def broken(*_):
        raise ValueError("a bug")

    monkeypatch.setitem(sys.modules, STAGES, SimpleNamespace(run_stages=broken))
    with pytest.raises(ValueError, match="a bug"):
        main(["train", "tiny.yaml"])


def test_a_loss_that_is_not_finite_is_one_message(stage_calls, monkeypatch, capsys):
    def diverged(*_):
        raise NonFiniteLoss("clip: the loss is not finite")

    monkeypatch.setitem(sys.modules, STAGES, SimpleNamespace(run_stages=diverged))
    assert main(["train", "tiny.yaml"]) == 2
    assert capsys.readouterr().err == "dalle train: clip: the loss is not finite\n"


@pytest.mark.parametrize(
    "command",
    [
        "classify whole.png --labels a b",
        "rerank a whole.png",
        "index .",
        "search a",
        "optimize a",
        "evaluate",
        "caption whole.png",
    ],
)
def test_every_command_refuses_a_device_that_is_not_there(tmp_path, monkeypatch, capsys, command):
    tiny_run(tmp_path / "run")
    Image.new("RGB", (40, 40)).save(tmp_path / "whole.png")
    monkeypatch.chdir(tmp_path)
    assert main([*command.split(), "--run", "run", "--device", "gpu"]) == 2
    assert "--device gpu: not available here; use cpu" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["sample", "train", "index", "data", "search", "optimize"])
def test_arguments_that_are_not_text_are_refused_by_every_command(command, capsys):
    # As Python reads bytes that are not UTF-8.
    assert main([command, "a \udcff heart", "--run", "somewhere"]) == 2
    said = capsys.readouterr().err
    assert (
        said == f"dalle {command}: a \\udcff heart is not UTF-8; write it so, or rename the file\n"
    )


@pytest.mark.parametrize("path", ["", "~nobody-of-this-name/images"])
@pytest.mark.parametrize("command", [["data", "check"], ["train", "shapes", "--data.path"]])
def test_paths_that_name_nothing_are_one_line(command, path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*command, path]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if "data.path" in line]) == 1
    assert not any("Traceback" in line for line in said)

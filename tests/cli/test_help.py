"""What `--help` and completion say, and that they start fast: without torch."""

import io
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from dalle_mini_impl.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]
SUBJECTS = {
    "train": ["configs/shapes.yaml"],
    "plan": ["configs/emoji.yaml"],
    "data": ["check"],
}
"""What a command needs before --help to list all of its options."""

NO_OPTIONS = ("train", "plan", "data", "completion")
"""Commands whose options are fields of an experiment, where None is a value; or that have none."""


def help_of(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "200")
    out = io.StringIO()
    with redirect_stdout(out), pytest.raises(SystemExit):
        main([command, *SUBJECTS.get(command, []), "--help"])
    return out.getvalue()


def test_no_help_imports_torch():
    calls = [["--help"], ["train", "--help"], ["plan", "--help"], ["data", "--help"]]
    calls += [[name, *SUBJECTS.get(name, []), "--help"] for name in COMMANDS]
    calls.append(["completion", "bash"])
    code = f"""
import sys
from contextlib import suppress
from dalle_mini_impl.cli import main
for call in {calls}:
    with suppress(SystemExit):
        main(call)
    heavy = sorted({{"torch", "datasets", "accelerate", "transformers"}} & sys.modules.keys())
    assert not heavy, (call, heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", [n for n in COMMANDS if n not in NO_OPTIONS])
def test_help_names_what_is_taken_where_an_option_is_not_given(command, monkeypatch):
    text = help_of(command, monkeypatch)
    assert "None" not in text
    assert "(default: )" not in text


def test_help_names_the_run_and_its_configuration(monkeypatch):
    text = re.sub(r"[│\s]+", " ", help_of("sample", monkeypatch))
    assert "--guidance FLOAT Guidance scale" in text
    assert "(default: the run's sampling.guidance, 2.0 unless configured)" in text
    assert "(default: the newest run under runs/, else pretrained:shapes)" in text
    assert "--compile {auto,on,off}" in text
    # Not broken where the source breaks it.
    assert "the null caption's, or both of the first two" in help_of("sample", monkeypatch)
    text = re.sub(r"[│\s]+", " ", help_of("evaluate", monkeypatch))
    assert "(default: the run's sampling.guidance)" in text
    assert "(default: RUN/evaluation)" in text


@pytest.mark.parametrize("command", ["train", "data"])
def test_help_before_a_command_is_its_help(command, capsys):
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert main(["help", command]) == 0
    assert capsys.readouterr().out == shown != ""
    assert main(["help"]) == 0
    assert "  train " in capsys.readouterr().out
    assert main(["help", "trian"]) == 2
    assert "did you mean train?" in capsys.readouterr().err


def completions(script, *words):
    """What bash offers for the last of these words."""
    code = f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _dalle\n"
    code = f'{script}\n{code}printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_bash_completes_commands_and_options(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert completions(script, "dalle", "sam") == ["sample"]
    assert completions(script, "dalle", "sample", "--keep") == ["--keep-rows"]
    assert completions(script, "dalle", "train", "x.yaml", "--transformer.dep") == [
        "--transformer.depth"
    ]
    assert completions(script, "dalle", "search", "a", "ima") == []  # A file's name, perhaps.


@pytest.mark.parametrize(("shell", "option"), [("zsh", "--keep-rows"), ("fish", "-l keep-rows")])
def test_other_shells_get_every_command_and_option(capsys, shell, option):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert option in script
    assert all(name in script for name in COMMANDS)


def test_an_unknown_shell_is_refused(capsys):
    assert main(["completion", "tcsh"]) == 2
    assert "dalle completion: tcsh: name one shell: bash, zsh, fish" in capsys.readouterr().err

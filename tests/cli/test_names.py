"""Names and captions that are no plain text stop no command, and command no terminal."""

import json
import os
import sys

import pytest
from PIL import Image

from dalle_mini_impl.cli import main
from dalle_mini_impl.data.messages import printable, readable
from tests.tiny import tiny_run

NOT_UTF8 = os.fsdecode(b"h\xe9art.png")
"""The name of a file from an old disk, as Python has it."""
HOSTILE = "a red \x1b]0;owned\x07star\x1b[2J\x9b"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("runs") / "tiny", ("clip",))


@pytest.mark.parametrize("command", ["sample", "classify", "data", "train"])
def test_a_nul_is_refused(command, capsys):
    assert main([command, "a\0b"]) == 2
    message = capsys.readouterr().err
    assert message == f"dalle {command}: a\\x00b has a NUL character; leave it out\n"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.parametrize("option", ["--json", "--quiet"])
def test_a_folder_may_hold_names_that_are_no_text(run, option, tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    with open(os.fsencode(folder) + b"/h\xe9art.png", "wb") as file:
        Image.new("RGB", (8, 8)).save(file, "PNG")
    sheet = tmp_path / "sheet.png"
    words = ["rerank", "a heart", str(folder), "--run", str(run.path), "--sheet", str(sheet)]
    assert main([*words, option]) == 0
    printed = capsys.readouterr().out
    printed.encode()
    assert "udce9art.png" in printed
    if option == "--json":
        assert json.loads(printed)["images"][0]["image"] == readable(str(folder / NOT_UTF8))
    assert sheet.is_file()


def test_captions_do_not_command_the_terminal(run, tmp_path, capsys):
    assert printable("a café\t☃ 星\u00a0.\n") == "a café\t☃ 星\u00a0.\n"
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(HOSTILE, encoding="utf-8")
    assert main(["data", "check", str(tmp_path), "--data.image-size", "8"]) == 0
    words = ["classify", str(tmp_path), "--labels", HOSTILE, "b", "--run", str(run.path)]
    assert main(words) == 0
    assert main(["sample", HOSTILE, "--run", f"{tmp_path}/{HOSTILE}"]) == 2
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        assert not {"\x1b", "\x07", "\x9b"} & set(text)
    assert "x1b]0;owned" in captured.out

"""Failures of the disk are one line that names the path, the cause and the mend."""

import errno
import os
import resource
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dalle_mini_impl.cli import main
from dalle_mini_impl.data.codes import CodeCache, CodeKey
from dalle_mini_impl.files import atomic_folder, atomic_write
from dalle_mini_impl.images import save_png
from dalle_mini_impl.runs import os_errors
from dalle_mini_impl.runs.os_errors import explain_os_error

NUMBERS = torch.rand(100_000)


@pytest.fixture
def no_room():
    """Files end at 50 kB, as they do where a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


WRITERS = {
    "text": lambda path: path.write_text("a" * 200_000, encoding="utf-8"),
    "numpy": lambda path: np.save(path.open("wb"), NUMBERS.numpy()),
    "torch": lambda path: torch.save({"numbers": NUMBERS}, path),
    "safetensors": lambda path: save_file({"numbers": NUMBERS}, path),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_failed_write_names_the_file_and_leaves_none(writer, no_room, tmp_path):
    target = tmp_path / "weights"
    with pytest.raises(OSError) as caught, atomic_write(target) as temporary:  # noqa: PT011
        WRITERS[writer](temporary)
    line = explain_os_error(caught.value)
    assert line is not None
    assert line.startswith(f"{target}: ")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_of_a_folder_names_the_folder(no_room, tmp_path):
    target = tmp_path / "step-10"
    with pytest.raises(OSError) as caught, atomic_folder(target) as temporary:  # noqa: PT011
        torch.save({"numbers": NUMBERS}, temporary / "tensors.pt")
    assert str(explain_os_error(caught.value)).startswith(f"{target}: ")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_from_a_broken_one(no_room, tmp_path, monkeypatch):
    for free, cause in ((0, "the disk is full"), (2**30, "the disk failed")):
        usage = shutil._ntuple_diskusage(2**40, 2**40 - free, free)
        monkeypatch.setattr(os_errors.shutil, "disk_usage", lambda _, usage=usage: usage)
        with pytest.raises(OSError) as caught, atomic_write(tmp_path / "a") as temporary:  # noqa: PT011
            torch.save({"numbers": NUMBERS}, temporary)
        assert cause in str(explain_os_error(caught.value))


def test_a_code_cache_without_room_is_an_error_not_the_end_of_the_process(no_room, tmp_path):
    key = CodeKey("weights", "data", 1, 100)
    chunks = [np.zeros((100, 256), np.int64)]
    with pytest.raises(OSError) as caught:  # noqa: PT011
        CodeCache.write(tmp_path / "codes", key, chunks)
    assert "codes.npy: " in str(explain_os_error(caught.value))
    assert not list((tmp_path / "codes").iterdir())


def test_errors_of_others_pass_through(tmp_path):
    with pytest.raises(RuntimeError, match="a bug"), atomic_write(tmp_path / "a"):
        raise RuntimeError("a bug")
    missing = tmp_path / "missing"
    with pytest.raises(FileNotFoundError, match="missing"), atomic_write(tmp_path / "a"):
        missing.read_bytes()


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EDQUOT, "your disk quota is used up"),
        (errno.EROFS, "the disk is read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "the disk failed"),
    ],
)
def test_errors_of_the_system_are_one_line(number, cause, monkeypatch, tmp_path, capsys):
    def failing(*_: object) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path / "a.png"))

    monkeypatch.setattr("dalle_mini_impl.cli.export.main", failing)
    assert main(["export"]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"dalle export: {tmp_path / 'a.png'}: {cause}")
    assert message.count("\n") == 1

    monkeypatch.setenv("DALLE_TRACEBACK", "1")
    with pytest.raises(OSError, match=r"a\.png"):
        main(["export"])


def test_a_missing_file_of_the_program_is_its_bug():
    own = os_errors.PACKAGE / "cli" / "missing.py"
    assert explain_os_error(FileNotFoundError(errno.ENOENT, "none", str(own))) is None
    assert explain_os_error(OSError("no number")) is None


def test_memory_that_runs_out_is_one_line(monkeypatch, capsys):
    def failing(*_: object) -> None:
        torch.empty(2**60)

    monkeypatch.setattr("dalle_mini_impl.cli.export.main", failing)
    assert main(["export"]) == 2
    assert capsys.readouterr().err.startswith("dalle export: memory ran out")


def loads(*_: object, **__: object) -> None:
    raise AssertionError("a model is loaded before --out is checked")


@pytest.mark.parametrize(
    "command",
    [
        "sample text --out OUT",
        "optimize text --out OUT",
        "search text --out OUT",
        "rerank text whole.png --sheet OUT/sheet.png",
        "export run OUT/run",
        "fetch-data emoji --out OUT/emoji",
        "data check shapes --sheet OUT/sheet.png",
        "train shapes --run OUT",
    ],
)
@pytest.mark.parametrize("problem", ["file", "below a file", "long", "closed", "empty"])
def test_the_output_is_checked_before_anything_is_loaded(
    command, problem, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    save_png(Image.new("RGB", (8, 8)), tmp_path / "whole.png")
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("dalle_mini_impl.runs.folder.RunFolder.open", loads)
    monkeypatch.setattr("dalle_mini_impl.cli.sample.sample", loads)
    out = {"file": "file", "below a file": "file/below", "long": "a" * 300, "empty": ""}
    if problem == "closed":
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    words = [word.replace("OUT", out.get(problem, "new"), 1) for word in command.split()]
    if problem == "empty" and "" not in words:
        pytest.skip("only where the folder itself is named")
    try:
        status = main(words)
    except SystemExit as refused:
        status = refused.code
    assert status == 2
    message = capsys.readouterr().err
    reasons = {"long": "too long", "closed": "cannot be written", "empty": "the path is empty"}
    assert reasons.get(problem, "is a file") in message
    assert (tmp_path / "file").read_text() == "mine"

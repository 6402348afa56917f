"""Files that appear complete or not at all."""

import os

import pytest

from dalle_mini_impl.files import (
    atomic_folder,
    atomic_write,
    file_digest,
    remove_parts,
    temporary_path,
    write_text,
)


@pytest.fixture
def order(monkeypatch):
    """The names of what was synced and renamed, in order."""
    calls = []
    sync, replace, rename = os.fsync, os.replace, os.rename

    def named(descriptor):
        return os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fsync", lambda fd: calls.append(("sync", named(fd))) or sync(fd))
    for name, original in (("replace", replace), ("rename", rename)):

        def noted(source, target, original=original, **options):
            calls.append(("rename", os.path.basename(target)))
            return original(source, target, **options)

        monkeypatch.setattr(os, name, noted)
    return calls


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="names come from /proc")
def test_a_file_reaches_the_disk_before_its_name_does(tmp_path, order):
    write_text(tmp_path / "a.txt", "new")
    assert [kind for kind, _ in order] == ["sync", "rename", "sync"]
    assert order[0][1].startswith(".a.txt.")
    assert order[1:] == [("rename", "a.txt"), ("sync", tmp_path.name)]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="names come from /proc")
def test_a_folder_reaches_the_disk_before_its_name_does(tmp_path, order):
    with atomic_folder(tmp_path / "f") as folder:
        (folder / "a").write_text("1")
    assert [name for _, name in order[:1]] == ["a"]
    assert [kind for kind, _ in order] == ["sync", "sync", "rename", "sync"]
    assert order[2:] == [("rename", "f"), ("sync", tmp_path.name)]
    assert (tmp_path / "f" / "a").read_text() == "1"


def write_half(file):
    file.write_text("half")
    raise OSError("the disk is full")


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(OSError, match="full"), atomic_write(tmp_path / "a.txt") as file:
        write_half(file)
    with pytest.raises(OSError, match="full"), atomic_folder(tmp_path / "f") as folder:
        write_half(folder / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_folder_replaces_the_one_before(tmp_path):
    for text in ("old", "new"):
        with atomic_folder(tmp_path / "f") as folder:
            (folder / text).touch()
    assert [path.name for path in (tmp_path / "f").iterdir()] == ["new"]


def test_temporary_names_differ_and_are_swept(tmp_path):
    path = tmp_path / "a[1].txt"
    names = {temporary_path(path) for _ in range(50)}
    assert len(names) == 50
    for number, name in enumerate(sorted(names)):
        name.mkdir() if number % 2 else name.touch()
    other = temporary_path(tmp_path / "b.txt")
    other.touch()
    remove_parts(path)
    assert list(tmp_path.iterdir()) == [other]


def test_a_digest_is_of_every_byte(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(bytes(3 * 2**20 + 5))
    b.write_bytes(b"b")
    before = file_digest(a, b)
    assert len(before) == 32
    with a.open("r+b") as file:
        file.seek(2**20)
        file.write(b"\1")
    assert file_digest(a, b) != before
    assert file_digest(b, a) != file_digest(a, b)

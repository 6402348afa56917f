"""Fingerprints of files change with their content."""

from pathlib import Path

from dalle_mini_impl.data.collections import fingerprints
from dalle_mini_impl.data.collections.fingerprints import files_fingerprint


def test_files_are_told_apart_by_their_ends_and_tables_by_all(tmp_path):
    def changed(name: str, place: int) -> bool:
        file = tmp_path / name
        content = bytearray(300_000)
        file.write_bytes(content)
        before = files_fingerprint([(name, str(file))])
        content[place] = 1
        file.write_bytes(content)
        return files_fingerprint([(name, str(file))]) != before

    assert changed("a.png", 0)
    assert changed("a.png", -1)
    assert not changed("a.png", 150_000)  # large images and shards are not read whole
    assert changed("a.csv", 150_000)


def test_of_many_files_some_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprints, "READ_ALL_UP_TO", 10)
    monkeypatch.setattr(fingerprints, "SAMPLED", 5)
    files = [(f"{number}", str(tmp_path / f"{number}")) for number in range(20)]
    for _, path in files:
        Path(path).write_bytes(b"one")
    read: list[str] = []
    content = fingerprints._content
    monkeypatch.setattr(
        fingerprints, "_content", lambda path: (read.append(path), content(path))[1]
    )
    before = files_fingerprint(files)
    assert len(read) == 5
    Path(files[1][1]).write_bytes(b"four")
    assert files_fingerprint(files) != before

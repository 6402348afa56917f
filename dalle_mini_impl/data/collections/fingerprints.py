"""Hashes that tell whether files changed: by what they hold, so that a copy counts as the same."""

import hashlib
import os
from collections.abc import Sequence

from dalle_mini_impl.data.collections.detect import FILES, suffix

END = 64 * 1024
"""Bytes read at the start and at the end of a file."""
MANY = 20_000
"""Above this many files only some are read; of the others the size is taken."""
SAMPLED = 2_000


def files_fingerprint(files: Sequence[tuple[str, str]]) -> str:
    """Hash of names, sizes and contents.

    Of images and shards the ends are read, of tables everything: a caption may change in the
    middle without changing the size. Missing files and URLs count by their names alone.

    Args:
        files: (name, path) of each file; the names are hashed, the paths only opened.
    """
    step = 1 if len(files) <= MANY else -(-len(files) // SAMPLED)
    digest = hashlib.sha256()
    for index, (name, path) in enumerate(files):
        digest.update(repr(name).encode("utf-8", "backslashreplace"))
        try:
            digest.update(_content(path) if index % step == 0 else _size(path))
        except OSError:
            digest.update(b"missing")
    return digest.hexdigest()


def _size(path: str) -> bytes:
    return str(os.stat(path).st_size).encode()


def _content(path: str) -> bytes:
    size = os.stat(path).st_size
    whole = FILES.get(suffix(path)) in ("csv", "json")
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        if whole:
            while block := file.read(1 << 20):
                digest.update(block)
        else:
            digest.update(file.read(END))
            if size > END:
                file.seek(max(END, size - END))
                digest.update(file.read(END))
    return digest.digest()

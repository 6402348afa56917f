"""Hashes that change when the content of files does; a copy has the same hash."""

import hashlib
import os
import stat
from collections.abc import Sequence

from dalle_mini_impl.data.collections.detect import FILE_KINDS, suffix

END_BYTES = 64 * 1024
"""Bytes read at the start and at the end of a file."""
READ_ALL_UP_TO = 20_000
"""With more files than this, only SAMPLED are read; the others count by their size."""
SAMPLED = 2_000


def files_fingerprint(files: Sequence[tuple[str, str]]) -> str:
    """Hash of names, sizes and contents of (name, path) pairs; the paths are only opened.

    Tables are read whole, because a caption can change without changing the size; of images and
    shards only both ends are read. Missing files and URLs count by their names alone.
    """
    step = 1 if len(files) <= READ_ALL_UP_TO else -(-len(files) // SAMPLED)
    digest = hashlib.sha256()
    for index, (name, path) in enumerate(files):
        digest.update(repr(name).encode("utf-8", "backslashreplace"))
        try:
            digest.update(_content(path) if index % step == 0 else _size(path))
        except (OSError, ValueError):  # ValueError: what no path can be
            digest.update(b"missing")
    return digest.hexdigest()


def _size(path: str) -> bytes:
    return str(os.stat(path).st_size).encode()


def _content(path: str) -> bytes:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
        raise FileNotFoundError(path)
    size = status.st_size
    whole = FILE_KINDS.get(suffix(path)) in ("csv", "json")
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        if whole:
            while block := file.read(1 << 20):
                digest.update(block)
        else:
            digest.update(file.read(END_BYTES))
            if size > END_BYTES:
                file.seek(max(END_BYTES, size - END_BYTES))
                digest.update(file.read(END_BYTES))
    return digest.digest()

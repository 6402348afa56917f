"""Files that appear complete or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path that is renamed to `path` if the block succeeds, else removed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        # safetensors makes files that only their owner may read; follow the folder instead.
        temporary.chmod(path.parent.stat().st_mode & 0o666)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file; a reader never sees half of it."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

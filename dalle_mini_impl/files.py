"""Files written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` if the block succeeds and vanishes if it does not."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        # safetensors writes for the owner alone; a run is as open as the folder it lies in.
        temporary.chmod(path.parent.stat().st_mode & 0o666)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

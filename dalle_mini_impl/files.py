"""Files and folders that appear complete or not at all, also after a power cut."""

import glob
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dalle_mini_impl.runs.os_errors import naming

PART = ".part"
"""How the names of what is still being written end."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path that is renamed to `path` if the block succeeds, else removed."""
    temporary = temporary_path(path)
    try:
        with naming(path, temporary):
            yield temporary
            # safetensors makes files that only their owner may read; follow the folder instead.
            temporary.chmod(path.parent.stat().st_mode & 0o666)
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)
    finally:
        with suppress(OSError):  # An error before is the one to tell.
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new temporary folder that replaces `path` if the block succeeds, and else is removed."""
    temporary = temporary_path(path)
    try:
        with naming(path, temporary):
            temporary.mkdir(parents=True)
            yield temporary
            for file in [*temporary.rglob("*"), temporary]:
                _sync(file)
            if path.exists():
                shutil.rmtree(path)
            temporary.rename(path)
            _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def temporary_path(path: Path) -> Path:
    """A name beside `path` that nobody else uses: process numbers repeat on a shared disk."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")


def remove_parts(path: Path) -> None:
    """Remove what killed processes left of writing `path`; only for its one writer."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*{PART}"):
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file; a reader never sees half of it.

    A file's name in it may hold bytes that are no text; they become escapes, as JSON has them.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def file_digest(*paths: Path) -> str:
    """A hash of the content of files, one after another, in 32 hexadecimal digits."""
    digest = hashlib.sha256()
    block = memoryview(bytearray(2**20))
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(block):
                digest.update(block[:count])
    return digest.hexdigest()[:32]


def _sync(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk now."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

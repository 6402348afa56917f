"""Images that a damaged tar shard hides: to its reader, a bad header is the end of the shard."""

import lzma
import os
import tarfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

from dalle_mini_impl.data.collections.detect import IMAGE_SUFFIXES, suffix

BLOCK = tarfile.BLOCKSIZE
NOTHING = bytes(BLOCK)


@dataclass(frozen=True)
class Damage:
    """Where a shard can no longer be read, and what is behind that."""

    reason: str
    images: tuple[str, ...]
    """Keys of the images that are not read; none where they cannot be told."""


def find_damage(file: str) -> Damage | None:
    """What a local shard loses if it is read from its start; None if it is whole."""
    status = os.stat(file)
    return _find_damage(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)  # all splits of a collection ask
def _find_damage(file: str, size: int, changed: int) -> Damage | None:
    name = os.path.basename(file)
    try:
        archive: Any  # the types of tarfile leave out `members`
        with tarfile.open(file) as archive:
            while archive.next() is not None:
                archive.members = []  # it would keep every member
            content = archive.fileobj
            content.seek(archive.offset)
            if content.read(BLOCK) == NOTHING:
                return _hidden(content, f"{name} goes on after its end", only_named=True)
            content.seek(archive.offset)
            if not content.read(1):
                return Damage(f"{name} ends without the mark of its end; more may be missing", ())
            content.seek(archive.offset)
            reason = f"{name} is damaged at byte {archive.offset:,} and not read from there on"
            return _hidden(content, reason, only_named=False)
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        return Damage(f"{name} is damaged ({error})", ())


def _hidden(content: Any, reason: str, only_named: bool) -> Damage | None:
    """The images whose headers follow. only_named: padding may follow, which is no damage."""
    keys: list[str] = []
    first = not only_named
    while len(block := content.read(BLOCK)) == BLOCK:
        if first:
            # The damaged header itself: a bit is wrong, but its name may still be read.
            keys += _image_key(block[:100].rstrip(b"\0").decode("utf-8", "backslashreplace"))
            first = False
        if block[257:262] != b"ustar":
            continue
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            continue
        if member.isreg():
            keys += _image_key(member.name)
            content.seek(-(-member.size // BLOCK) * BLOCK, os.SEEK_CUR)
    return None if only_named and not keys else Damage(reason, tuple(keys))


def _image_key(name: str) -> list[str]:
    """The name without its endings, if an image has it: what WebDataset calls the key."""
    path = PurePosixPath(name)
    if suffix(name) not in IMAGE_SUFFIXES or path.name.startswith((".", "__")):
        return []
    return [str(path.with_name(path.name.partition(".")[0]))]

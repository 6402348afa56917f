"""Lists files: below a folder, for a pattern, for names in braces; none of it without an end."""

import glob
import itertools
import math
import os
import re
from collections.abc import Callable, Collection
from pathlib import Path

MAX_NAMES = 100_000
MAX_CHARACTERS = 20_000_000
"""What braces may stand for: more names than any collection has shards."""


def walk_files(folder: Path, irregular: Collection[str] = ()) -> list[Path]:
    """The files below a folder but hidden ones, folder by folder, by name.

    A folder counts once, even if links lead to it again, and links to what is above the folder do
    not count. Pipes, devices and broken links are left out unless they end like `irregular`: who
    opens images counts them as unreadable.
    """
    files: list[Path] = []
    folders, links = [folder], list[Path]()
    root = os.path.realpath(folder)
    visited: set[str] = set()
    while folders or links:
        here = folders.pop() if folders else links.pop(0)
        real = os.path.realpath(here)
        if real in visited or (real != root and Path(real) in Path(root).parents):
            continue
        visited.add(real)
        deeper: list[Path] = []
        for entry in _entries(here):
            path = Path(here, entry.name)
            if _is(entry.is_dir):
                (links if entry.is_symlink() else deeper).append(path)
            elif _is(entry.is_file) or path.suffix.lower() in irregular:
                files.append(path)
        folders += reversed(deeper)
    return files


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            shown = (entry for entry in entries if not hidden(entry.name))
            return sorted(shown, key=lambda entry: entry.name)
    except OSError:  # not ours to read
        return []


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link to itself
        return False


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is no part of a collection."""
    return name.startswith(".") or name == "__MACOSX"


def matching_files(pattern: str) -> list[str]:
    """The files that a pattern of the shell stands for, sorted; `**` follows no links."""
    path = Path(pattern)
    if "**" not in path.parts:
        found = glob.glob(pattern)
    else:
        at = path.parts.index("**")
        base, rest = Path(*path.parts[:at]), Path(*path.parts[at:])
        rest = rest / "*" if rest.name == "**" else rest
        found = [
            str(file)
            for top in ([base] if base.is_dir() else map(Path, glob.glob(str(base))))
            for file in top.glob(str(rest))
            if not any(map(hidden, file.relative_to(top).parts))
        ]
    return sorted(file for file in found if not hidden(Path(file).name) and os.path.isfile(file))


def expand_braces(pattern: str) -> list[str]:
    """`shard-{00..02}.tar` and `{a,b}.tar` as the list of names, a bounded one.

    ValueError where it would be longer.
    """
    pieces = re.split(r"\{([^{}]*)\}", pattern)
    count = math.prod(map(_count, pieces[1::2]))
    if not 0 < count <= MAX_NAMES or count * len(pattern) > MAX_CHARACTERS:
        raise ValueError(f"its braces stand for {count:,} names")
    options = [[piece] if i % 2 == 0 else _alternatives(piece) for i, piece in enumerate(pieces)]
    return ["".join(choice) for choice in itertools.product(*options)]


def _count(inside: str) -> int:
    numbers = _numbers(inside)
    return inside.count(",") + 1 if numbers is None else len(numbers)


def _numbers(inside: str) -> range | None:
    """What `first..last` stands for; None if it is something else."""
    numbers = re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", inside)
    return None if numbers is None else range(int(numbers[1]), int(numbers[2]) + 1)


def _alternatives(inside: str) -> list[str]:
    numbers = _numbers(inside)
    if numbers is None:
        return inside.split(",")
    return [str(n).zfill(len(inside.partition("..")[0])) for n in numbers]

"""Finds the files behind a path, their kind, and the split that each is named for."""

import os
import re
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from dalle_mini_impl.data.collections.files import expand_braces, matching_files, walk_files
from dalle_mini_impl.data.collections.sample_lists import is_sheet, listed_images
from dalle_mini_impl.data.messages import counted


class DataError(ValueError):
    """A collection cannot be read; the message names the path, what is wrong and how to fix it."""


Kind = Literal["images", "samples", "csv", "json", "parquet", "webdataset", "hub"]
KIND_NAMES: dict[Kind, str] = {
    "images": "image files",
    "samples": "sample lists",
    "csv": "CSV tables",
    "json": "JSON tables",
    "parquet": "Parquet files",
    "webdataset": "WebDataset shards",
    "hub": "Hub data sets",
}

IMAGE_SUFFIXES = frozenset(
    (
        ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff",
        ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".jp2", ".avif", ".apng",
    )
)  # fmt: skip
FILE_KINDS: dict[str, Kind] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".tar": "webdataset",
    ".tar.gz": "webdataset",
    ".tgz": "webdataset",
}
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
ACCEPTED = (
    "shapes; panels; a folder of sampled images; "
    "a folder of images with same-named .txt files or a metadata.jsonl or .csv; "
    "a .csv, .tsv, .json or .jsonl of paths and captions; .parquet; WebDataset .tar "
    "(each a file, a folder, a glob or a URL); a Hub name such as owner/name or hub:name"
)
HUB = "hub:"
"""Marks a path as a Hub name; needed where the name has no owner."""
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(:[\w.-]+)?")
FETCHED = ("emoji", "cifar10")
"""What `dalle fetch-data` builds as data/NAME."""
LONGEST_PATH = 4096
"""In characters; systems allow no longer ones."""
OWNERLESS = re.compile(r"[\w-][\w.-]*(:[\w.-]+)?")
SPLIT_WORD = re.compile(
    r"(?<![a-z])(train|training|validation|valid|val|dev|test|testing|eval)(?![a-z])", re.I
)


@dataclass(frozen=True)
class Collection:
    """Files of one kind, sorted. `root` is the folder that keys are relative to, if local."""

    kind: Kind
    files: tuple[str, ...]
    root: Path | None

    def named(self, split: Literal["train", "validation"]) -> "Collection | None":
        """The files named for a split (train-0.parquet, validation/1.png). None unless every file
        has such a name, so that a class folder called "train" is not taken for a split."""
        words = [self._word(file) for file in self.files]
        if "train" not in words or None in words:
            return None
        held_out = "validation" if "validation" in words else "test"
        wanted = "train" if split == "train" else held_out
        files = tuple(f for f, word in zip(self.files, words, strict=True) if word == wanted)
        return Collection(self.kind, files, self.root) if files else None

    def without(self, excluded: Set[str]) -> "Collection":
        """The files that are not among `excluded` (paths as `real_path` gives them)."""
        if not excluded:
            return self
        kept = tuple(file for file in self.files if real_path(file) not in excluded)
        return Collection(self.kind, kept, self.root)

    def _word(self, file: str) -> str | None:
        path = PurePosixPath(self.relative(file))
        # Images belong to the split that their folder names, shards also by their own name.
        parts = path.parts[:-1] if self.kind == "images" else path.parts
        for part in parts:
            found = SPLIT_WORD.search(part)
            if found:
                word = found.group(1).lower()
                if word.startswith("train"):
                    return "train"
                return "test" if word.startswith("test") else "validation"
        return None

    def relative(self, file: str) -> str:
        """The file's path from the root, with forward slashes; a URL is unchanged."""
        if self.root is None:
            return file
        return Path(os.path.relpath(file, self.root)).as_posix()


def real_path(file: str) -> str:
    """The absolute path with links resolved, so that paths can be compared; a URL is unchanged."""
    try:
        return file if "://" in file else os.path.realpath(file)
    except ValueError:  # a table may hold what no path can be
        return file


def suffix(name: str) -> str:
    """The lower-case extension of a file or URL; `.tar.gz` is one extension."""
    path = PurePosixPath(urlsplit(name).path if "://" in name else name)
    endings = [ending.lower() for ending in path.suffixes[-2:]]
    return "".join(endings) if endings == [".tar", ".gz"] else path.suffix.lower()


def detect(path: str) -> Collection:
    """The collection behind a path, glob (`*`, `?`, `{00..09}`), URL or Hub name.

    Raises DataError naming the path, what was found there and what is accepted.
    """
    if not path or "\0" in path or len(path) > LONGEST_PATH:
        raise DataError(f"data.path {path[:80]!r} is no path ({len(path):,} characters)")
    try:
        names = expand_braces(path)
    except ValueError as error:
        raise DataError(f"data.path {path!r}: {error}; name fewer files, or a folder") from None
    if "://" in path:
        return _of_one_kind(path, names, None)
    if path.startswith(HUB):
        name = path.removeprefix(HUB)
        if HUB_NAME.fullmatch(name) or OWNERLESS.fullmatch(name):
            return Collection("hub", (path,), None)
        raise DataError(f"data.path {path!r} is not a Hub name. Accepted: {ACCEPTED}")
    local = Path(os.path.expanduser(path))
    if os.path.isdir(local):
        return _folder(path, local)
    if os.path.isfile(local) and listed_images(local) is not None:
        return Collection("samples", (str(local),), local.parent)
    if os.path.isfile(local):
        return _of_one_kind(path, [str(local)], local.parent)
    if any(character in path for character in "*?[{"):
        patterns = expand_braces(str(local))
        files = sorted({file for pattern in patterns for file in matching_files(pattern)})
        if not files:
            raise DataError(f"data.path {path!r} matches no file (from {Path.cwd()}){_hint(path)}")
        root = Path(os.path.commonpath([str(Path(file).parent) for file in files]))
        return _of_one_kind(path, files, root)
    # The Hub is slow to ask, so a mistyped local path must not be taken for a Hub name.
    known = suffix(path) in IMAGE_SUFFIXES | set(FILE_KINDS) or _hint(path)
    if HUB_NAME.fullmatch(path) and not known:
        return Collection("hub", (path,), None)
    more = _hint(path) or f". Accepted: {ACCEPTED}"
    raise DataError(f"data.path {path!r} does not exist (from {Path.cwd()}){more}")


def _hint(path: str) -> str:
    """How to make a collection that a shipped configuration names, if `path` is one."""
    parts = PurePosixPath(path).parts[:2]
    made = parts[0:1] == ("data",) and parts[-1] in FETCHED
    return f"; make it with `dalle fetch-data {parts[1]}`" if made else ""


def _of_one_kind(path: str, files: list[str], root: Path | None) -> Collection:
    kinds = {"images" if suffix(f) in IMAGE_SUFFIXES else FILE_KINDS.get(suffix(f)) for f in files}
    if len(kinds) > 1:
        endings = ", ".join(sorted({suffix(file) or "no ending" for file in files}))
        raise DataError(f"data.path {path!r} mixes kinds of files ({endings}); name one kind")
    kind = kinds.pop()
    if kind is None:
        ending = suffix(files[0])
        advice = " Unpack it and name the folder." if ending in {".zip", ".rar", ".7z"} else ""
        what = f"a {ending} file" if ending else "a file without a known ending"
        raise DataError(f"data.path {path!r} is {what}.{advice} Accepted: {ACCEPTED}")
    if kind == "images" and (root is None or len(files) == 1):
        raise DataError(f"data.path {path!r} is one image; name the folder that holds them")
    return Collection(kind, tuple(files), root)


def _folder(path: str, folder: Path) -> Collection:
    files = walk_files(folder, irregular=IMAGE_SUFFIXES)
    metadata = [file for file in files if file.name in METADATA]
    if metadata:
        return _of_one_kind(path, [str(file) for file in metadata], folder)
    lists = [str(file) for file in files if listed_images(file) is not None]
    if lists:
        return Collection("samples", tuple(lists), folder)
    by_kind: dict[str, list[Path]] = {}
    for file in files:
        ending = suffix(file.name)
        kind = "images" if ending in IMAGE_SUFFIXES else FILE_KINDS.get(ending)
        # An unpacked WebDataset has a .json beside each image, which is not a table.
        if is_sheet(file):
            continue
        if kind is not None and (kind not in ("csv", "json") or file.parent == folder):
            by_kind.setdefault(kind, []).append(file)
    images = by_kind.pop("images", [])
    shards = {kind: by_kind[kind] for kind in ("parquet", "webdataset") if kind in by_kind}
    tables = [file for kind in ("csv", "json") for file in by_kind.get(kind, [])]
    if images and not shards:
        captioned = any(file.with_suffix(".txt").is_file() for file in images)
        if len(tables) == 1 and not captioned:
            return _of_one_kind(path, [str(tables[0])], folder)
        return Collection("images", tuple(str(file) for file in images), folder)
    found = [*shards.values(), *([tables] if tables and not shards else [])]
    if len(found) == 1 and not images:
        return _of_one_kind(path, [str(file) for file in found[0]], folder)
    if not found:
        endings = sorted({file.suffix.lower() or "no ending" for file in files})
        what = f"{counted(len(files), 'file')} ({', '.join(endings[:6])})" if files else "nothing"
        raise DataError(f"data.path {path!r} is a folder that holds {what}. Accepted: {ACCEPTED}")
    kinds = ", ".join([*(["images"] if images else []), *shards])
    example = next(iter(shards.values()))[0]
    raise DataError(
        f"data.path {path!r} is a folder that holds more than one kind: {kinds}. "
        f"Name one, such as {example.parent / ('*' + suffix(example.name))}"
    )

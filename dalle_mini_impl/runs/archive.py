"""An exported run as one zip. Of a stranger's zip, only files with known names are unpacked."""

import shutil
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from dalle_mini_impl.files import atomic_write
from dalle_mini_impl.runs.stages import WEIGHTS
from dalle_mini_impl.runs.weights import RunError, first_few

CARD, SAMPLES = "README.md", "samples.png"
"""What an export shows of the run: a description with figures, and a sheet of samples."""
NEEDED = ("config.yaml", "captions.json", "image_tokenizer.safetensors", "dalle.safetensors")
SMALL = {"config.yaml", "captions.json", CARD, SAMPLES}
MEMBERS = {*SMALL, *(f"{name}.safetensors" for name in WEIGHTS.values())}
MAX_SMALL = 64 * 2**20
"""Bytes of a file that holds no weights."""
MAX_EXPANSION = 20
"""How many times larger than in the zip weights may be; trained ones hardly get smaller."""


def pack(folder: Path, target: Path) -> None:
    """Write an exported run's files as one zip."""
    with atomic_write(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name, zipfile.ZIP_DEFLATED)


def unpack(source: Path, folder: Path) -> None:
    """Write the files of an exported run into `folder`; RunError for every other zip."""
    try:
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
            _check(source, members)
            for member in members:
                with archive.open(member) as packed, open(folder / member.filename, "wb") as file:
                    shutil.copyfileobj(packed, file, 2**20)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise RunError(f"{source}: not a readable zip ({error}); copy it again") from error


def _check(source: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    surplus = sorted({name for name in names if name not in MEMBERS or names.count(name) > 1})
    missing = [name for name in NEEDED if name not in names]
    huge = [member.filename for member in members if _is_too_large(member)]
    complaints = {"holds": surplus, "lacks": missing, "is too large in": huge}
    wrong = "; ".join(f"{what} {first_few(found)}" for what, found in complaints.items() if found)
    if any(member.flag_bits & 1 for member in members):
        wrong = wrong or "is encrypted"
    if wrong:
        raise RunError(f"{source}: not a run that `dalle export` wrote: it {wrong}")


def _is_too_large(member: zipfile.ZipInfo) -> bool:
    if member.filename in SMALL:
        return member.file_size > MAX_SMALL
    return member.file_size > max(MAX_SMALL, MAX_EXPANSION * member.compress_size)

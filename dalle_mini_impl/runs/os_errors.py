"""Errors of the operating system in one line: the path, the cause and the mend."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
ELSEWHERE = "or name a folder on another disk"
CAUSES = {
    errno.ENOSPC: f"the disk is full; free some space, {ELSEWHERE}",
    errno.EDQUOT: f"your disk quota is used up; delete something, {ELSEWHERE}",
    errno.EROFS: "the disk is read-only; name a folder elsewhere",
    errno.EACCES: "permission denied; change its permissions, or name another path",
    errno.EPERM: "permission denied; change its permissions, or name another path",
    errno.ENAMETOOLONG: "the name is too long; use a shorter one",
    errno.EIO: "the disk failed to read or write; check it, and what was written to it lately",
    errno.ESTALE: "the network drive no longer has it; connect the drive again",
    errno.ENOENT: "it is not there; check the path, or whether another program removed it",
    errno.ENOTDIR: "a part of this path is a file, not a folder; name another path",
    errno.EISDIR: "it is a folder, but should be a file; name another path",
    errno.EEXIST: "it exists already, and not as a folder; remove it, or name another path",
    errno.ENOTEMPTY: "another program wrote into this folder; try again",
    errno.EBUSY: "another program uses it; end that program, or name another path",
    errno.EFBIG: f"files there cannot be so large; raise the limit (ulimit -f), {ELSEWHERE}",
    errno.ELOOP: "its symbolic links lead in a circle; remove one of them",
    errno.EMFILE: "too many files are open; raise the limit with `ulimit -n`",
    errno.ENFILE: "too many files are open on this machine; end some programs",
}
"""What each error number means to the user; others are bugs of the program."""
FAILED_WRITES = ("inline_container", "file write failed", "requested and")
"""What torch and numpy say of a failed write, without its reason."""
LEAST_FREE = 2**20
"""With fewer free bytes a failed write is put down to a full disk."""


def explain_os_error(error: BaseException) -> str | None:
    """One line for the user; None if the error is another one, or a bug of the program."""
    if not isinstance(error, OSError) or error.errno not in CAUSES:
        return None
    path = error.filename2 if error.filename2 is not None else error.filename
    if isinstance(path, int) or path is None:
        return f"{CAUSES[error.errno]} ({error.strerror})"
    name = os.fsdecode(path)
    if error.errno == errno.ENOENT and Path(os.path.abspath(name)).is_relative_to(PACKAGE):
        return None  # a file of the program
    return f"{shortened(name)}: {CAUSES[error.errno]}"


def shortened(name: str, most: int = 200) -> str:
    """A path without its middle where it is very long."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-most // 2 :]}"


@contextmanager
def naming(path: Path, temporary: Path) -> Iterator[None]:
    """Inside, errors of the system name `path`, which is written under a temporary name.

    Failed writes name no file, and numpy, safetensors and torch have other errors for them.
    """
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        named = error.filename if isinstance(error, OSError) else None
        if named is not None and not str(named).startswith(str(temporary)):
            raise
        number = number or _error_number(str(error), path)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _error_number(message: str, path: Path) -> int | None:
    """The system's error number in the message of another library, if there is one."""
    if found := re.search(r"os error (\d+)|Os \{ code: (\d+)", message):
        return int(found[1] or found[2])
    if not any(text in message for text in FAILED_WRITES):
        return None
    folder = next((each for each in path.parents if each.is_dir()), Path())
    full = shutil.disk_usage(folder).free < LEAST_FREE
    return errno.ENOSPC if full else errno.EIO

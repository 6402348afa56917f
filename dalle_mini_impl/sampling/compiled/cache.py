"""The user's own folder for compiled code: what may be run from it, and what names it."""

import hashlib
import os
import platform
import stat
from contextlib import suppress
from pathlib import Path

import psutil
import torch

PACKAGE = Path(__file__).parents[2]


def cache_folder() -> Path:
    """Where compiled steps are kept between runs: the user's own, since they are code."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "dalle_mini_impl"


def use_own_compile_cache() -> None:
    """Let torch's compiler use the user's own cache folder, unless the user chose another.

    By default it takes one in /tmp, and sets it as soon as it is imported, in the same variable.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    name = "TORCHINDUCTOR_CACHE_DIR"
    if os.environ.get(name) in (None, os.path.abspath(default_cache_dir())):
        os.environ[name] = str(cache_folder() / "inductor")


def digest_file(package: Path) -> Path:
    """The file with a package's digest: torch may crash on a damaged package."""
    return package.with_suffix(".digest")


def is_own(path: Path) -> bool:
    """Whether there is such a file that nobody but the user can have written: it will be run."""
    try:
        found = [part.stat() for part in (path, path.parent)]
    except OSError:
        return False
    if not hasattr(os, "getuid"):
        return True
    others = stat.S_IWGRP | stat.S_IWOTH
    return all(each.st_uid == os.getuid() and not each.st_mode & others for each in found)


def forget_oldest(folder: Path, limit: int) -> None:
    """Delete the packages used longest ago until at most `limit` bytes are left, or one package."""
    found = []
    for path in folder.glob("*.pt2"):
        with suppress(OSError):  # another process deletes too
            found.append((path.stat().st_mtime, path.stat().st_size, path))
    total = 0
    for rank, (_, size, path) in enumerate(sorted(found, reverse=True)):
        total += size
        if rank > 0 and total > limit:
            path.unlink(missing_ok=True)
            digest_file(path).unlink(missing_ok=True)


def source_digest() -> str:
    """Identifies this package's source; unique where a file changed after this process began.

    What runs here is then not what lies on disk, and no other process may take it for that.
    """
    digest = hashlib.sha256()
    began = psutil.Process().create_time()
    for source in sorted(PACKAGE.rglob("*.py")):
        digest.update(source.read_bytes())
        if source.stat().st_mtime > began:
            digest.update(os.urandom(16))
    return digest.hexdigest()


def machine() -> tuple[str, ...]:
    """What compiled code depends on besides its source."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        flags = next(
            (line for line in text.splitlines() if line.startswith(("flags", "Features"))), ""
        )
    except OSError:
        flags = platform.processor()
    return (
        torch.__version__,
        torch.backends.cpu.get_cpu_capability(),
        os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
        os.environ.get("DALLE_KERNELS", ""),
        str(torch.get_num_threads()),
        platform.platform(),
        platform.python_version(),
        flags,
    )

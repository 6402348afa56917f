"""Compiled decoding steps on a CPU: packages of code and weights that outlive the process.

A step is exported with its window and its number of rows left open, its weights are packed as the
products want them, and AOTInductor compiles it. The next process loads the package in a second or
two where compiling takes half a minute. A package is code that is run, so it lies in the user's own
cache folder, never in a run folder, under a name made of all that it was made of.
"""

import hashlib
import os
import platform
import shutil
import stat
import tempfile
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import torch
from filelock import FileLock
from jaxtyping import Int
from torch import Tensor, nn
from torch.utils import _pytree as pytree

Step = Callable[[Any, Any, Tensor], None]

KEPT_BYTES = 2**31
"""Of packages in the cache folder; the ones that were used last stay."""

PROJECT = Path(__file__).parents[2]


class ExportedStep(nn.Module):
    """A step as a function of a window and of the tensors among its buffers, in their order."""

    def __init__(self, model: nn.Module, step: Step, buffers: Any):
        super().__init__()
        self.model, self.step = model, step
        self.leaves, self.form = pytree.tree_flatten(buffers)

    def forward(self, window: Int[Tensor, "r"], *tensors: Tensor) -> None:
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        self.step(self.model, pytree.tree_unflatten(leaves, self.form), window)


class StepPackages:
    """The packages of one model's steps, one for each kind of step.

    What is no tensor among the buffers must be the same for all of a kind.
    """

    def __init__(self, model: nn.Module, step: Step, rows: Callable[[Any], Iterable[Tensor]]):
        """rows: the buffers whose first size is the batch's, or a multiple of it.

        The model must stay as it is.
        """
        self.model, self.step, self.rows = model, step, rows
        self.loaded: dict[Hashable, Any] = {}
        self.source = source_digest()

    def run(self, kind: Hashable, buffers: Any, places: Tensor, reaches: range) -> Iterator[None]:
        """A step for each window `places[:reach]`, compiled or loaded first; yields after each."""
        if kind not in self.loaded:
            keep_what_torch_compiles()
            self.loaded[kind] = self._load(kind) or self._compile(kind, buffers, places)
        # The loader's own call: that of the model around it takes the arguments' form apart.
        step = self.loaded[kind].loader.run
        tensors = [leaf for leaf in pytree.tree_leaves(buffers) if isinstance(leaf, Tensor)]
        for reach in reaches:
            # The first window reads a position too many, which the step masks: a size that can be
            # 1, as what the first step reads besides the text, could not be left open.
            step([places[: max(reach, reaches[0] + 1)], *tensors])
            yield

    def at_hand(self, kind: Hashable) -> bool:
        """Whether steps of this kind run on a CPU and need no compiling."""
        if any(weight.device.type != "cpu" for weight in self.model.parameters()):
            return False
        try:
            return kind in self.loaded or is_own(self.path(kind))
        except RuntimeError:  # the user has no home
            return False

    def path(self, kind: Hashable) -> Path:
        """Where the package of such a step is, if there is one."""
        digest = self._model_digest.copy()
        digest.update(repr((kind, machine(), self.source)).encode())
        return cache_folder() / "steps" / f"{digest.hexdigest()[:32]}.pt2"

    @cached_property
    def _model_digest(self) -> Any:
        """Of the model's structure and of all its numbers."""
        digest = hashlib.sha256(repr(self.model).encode())
        for name, tensor in sorted((*self.model.named_parameters(), *self.model.named_buffers())):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest

    def _load(self, kind: Hashable) -> Any:
        path = self.path(kind)
        if not is_own(path):
            return None
        try:
            package = load(path)
        except Exception as error:  # half a file, a full disk, …: torch has no one error
            warnings.warn(f"{path} cannot be loaded ({error}): compiled anew", stacklevel=2)
            return None
        with suppress(OSError):
            os.utime(path)
        return package

    def _compile(self, kind: Hashable, buffers: Any, places: Tensor) -> Any:
        path = self.path(kind)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # One at a time: torch names its folder after the step's code, not its weights.
        with FileLock(path.parent / "lock"):
            package = self._load(kind)  # by a process that was before this one
            if package is None:
                made = compile_step(self.model, self.step, buffers, places, self.rows(buffers))
                package = load(made)
                keep(made, path)
                shutil.rmtree(made.parent, ignore_errors=True)
                forget_oldest(path.parent, KEPT_BYTES)
        return package


def source_digest() -> str:
    """Of this project's source; of no other process's where it changed since this one began.

    What runs here is then not what lies on disk, and must not be taken for it later.
    """
    digest = hashlib.sha256()
    began = psutil.Process().create_time()
    for source in sorted(PROJECT.rglob("*.py")):
        digest.update(source.read_bytes())
        if source.stat().st_mtime > began:
            digest.update(os.urandom(16))
    return digest.hexdigest()


def compile_step(
    model: nn.Module, step: Step, buffers: Any, window: Tensor, rows: Iterable[Tensor]
) -> Path:
    """Compile a step for any window and, if it has several rows, any number of them.

    Returns a package in a folder of torch's that holds nothing else. RuntimeError where there is
    no compiler.
    """
    if not (shutil.which("g++") or shutil.which("clang++")):
        raise RuntimeError("no C++ compiler (g++) was found")
    rows = list(rows)
    several = all(len(buffer) > 1 for buffer in rows)
    exported = ExportedStep(model, step, buffers)
    tensors = [leaf for leaf in exported.leaves if isinstance(leaf, Tensor)]
    # DYNAMIC is an error, not another package, where the step turns out to fit one size only.
    open_first = {0: torch.export.Dim.DYNAMIC}
    sizes = [
        open_first if several and any(tensor is buffer for buffer in rows) else None
        for tensor in tensors
    ]
    program = torch.export.export(
        exported, (window, *tensors), dynamic_shapes=(open_first, tuple(sizes)), strict=False
    )
    options = {"freezing": True, "cpp.enable_floating_point_contract_flag": "fast"}
    return Path(torch._inductor.aoti_compile_and_package(program, inductor_configs=options))


def load(path: Path) -> Any:
    """A package, ready to run.

    torch unpacks it into a temporary folder, which a process that is killed would leave behind:
    here it is gone as soon as its code is mapped, where the system allows that.
    """
    chosen = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["TMPDIR"] = folder
        try:
            return torch._inductor.aoti_load_package(str(path))
        finally:
            if chosen is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = chosen


def keep(made: Path, path: Path) -> None:
    """Move a package to where it is looked for, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        part = Path(folder) / path.name
        shutil.move(made, part)
        part.chmod(0o600)
        os.replace(part, path)


def is_own(path: Path) -> bool:
    """Whether there is such a package and nobody but the user can have written it: it is run."""
    try:
        found = [place.stat() for place in (path, path.parent)]
    except OSError:
        return False
    if not hasattr(os, "getuid"):
        return True
    others = stat.S_IWGRP | stat.S_IWOTH
    return all(each.st_uid == os.getuid() and not each.st_mode & others for each in found)


def forget_oldest(folder: Path, limit: int) -> None:
    """Delete what was used longest ago until at most `limit` bytes are left, or one package."""
    found = []
    for path in folder.glob("*.pt2"):
        with suppress(OSError):  # another process deletes too
            found.append((path.stat().st_mtime, path.stat().st_size, path))
    total = 0
    for rank, (_, size, path) in enumerate(sorted(found, reverse=True)):
        total += size
        if rank > 0 and total > limit:
            path.unlink(missing_ok=True)


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
        str(torch.get_num_threads()),
        platform.platform(),
        platform.python_version(),
        flags,
    )


def keep_what_torch_compiles() -> None:
    """Let torch's compiler use the user's own cache folder, if the user chose none.

    By itself it takes one in /tmp, as soon as it is imported, in the same variable.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    name = "TORCHINDUCTOR_CACHE_DIR"
    if os.environ.get(name) in (None, os.path.abspath(default_cache_dir())):
        os.environ[name] = str(cache_folder() / "inductor")


def cache_folder() -> Path:
    """Where compiled steps are kept between runs: the user's own, since it is code that is run."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "dalle_mini_impl"

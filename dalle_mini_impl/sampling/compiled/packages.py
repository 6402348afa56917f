"""Compiled decoding steps on a CPU: packages of code and weights that outlive the process.

A step is exported with its window and its number of rows left open, its weights are packed as the
products want them, and AOTInductor compiles it. The next process loads the package in a second or
two where compiling takes half a minute. A package is code that is run, so it lies in the user's own
cache folder, never in a run folder, under a name made of all that it was made of.
"""

import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from jaxtyping import Int
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dalle_mini_impl.files import file_digest, write_text
from dalle_mini_impl.sampling.compiled.cache import (
    cache_folder,
    digest_file,
    forget_oldest,
    is_own,
    machine,
    source_digest,
    use_own_compile_cache,
)

Step = Callable[[Any, Any, Tensor], None]
"""A step of a model: it writes the buffers in place, given a window."""

KEPT_BYTES = 2**31
"""Of packages in the cache folder; the ones that were used last stay."""


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
    """The packages of one model's steps, one for each specialization.

    What is no tensor among the buffers must be the same for all of a specialization.
    """

    def __init__(self, model: nn.Module, step: Step, per_row: Callable[[Any], Sequence[Tensor]]):
        """per_row: the buffers whose first size is the batch's, or a multiple of it.

        The model must stay as it is.
        """
        self.model, self.step, self.per_row = model, step, per_row
        self.loaded: dict[Hashable, Any] = {}
        self.source = source_digest()

    def bind(
        self, key: Hashable, buffers: Any, longest: Int[Tensor, "s"]
    ) -> Callable[[Int[Tensor, "r"]], None]:
        """The step of these buffers as a function of its window, compiled or loaded first.

        longest: the longest window there can be.
        """
        if key not in self.loaded:
            use_own_compile_cache()
            self.loaded[key] = self._load(key) or self._compile(key, buffers, longest)
        # The loader's own call: that of the model around it takes the arguments' form apart.
        run = self.loaded[key].loader.run
        tensors = [leaf for leaf in pytree.tree_leaves(buffers) if isinstance(leaf, Tensor)]
        first = 0

        def step(window: Int[Tensor, "r"]) -> None:
            nonlocal first
            first = first or len(window)
            # The first window reads a position too many, which the step masks: what the first step
            # reads besides the text would be of size 1, which could not be left open.
            run([torch.arange(first + 1) if len(window) == first else window, *tensors])

        return step

    def at_hand(self, key: Hashable) -> bool:
        """Whether steps of this specialization run on a CPU and need no compiling."""
        if any(weight.device.type != "cpu" for weight in self.model.parameters()):
            return False
        try:
            return key in self.loaded or is_own(self.path(key))
        except RuntimeError:  # the user has no home
            return False

    def path(self, key: Hashable) -> Path:
        """Where the package of such a step is, if there is one."""
        digest = self._model_digest.copy()
        digest.update(repr((key, machine(), self.source)).encode())
        return cache_folder() / "steps" / f"{digest.hexdigest()[:32]}.pt2"

    @cached_property
    def _model_digest(self) -> Any:
        """Of the model's structure and of all its numbers."""
        digest = hashlib.sha256(repr(self.model).encode())
        for name, tensor in sorted((*self.model.named_parameters(), *self.model.named_buffers())):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest

    def _load(self, key: Hashable) -> Any:
        path = self.path(key)
        if not is_own(path):
            return None
        try:
            if digest_file(path).read_text(encoding="utf-8") != file_digest(path):
                raise ValueError("its contents differ from its digest")
            package = load(path)
        except Exception as error:  # half a file, a full disk, …: torch has no one error
            warnings.warn(f"{path} cannot be loaded ({error}): compiled anew", stacklevel=2)
            return None
        with suppress(OSError):
            os.utime(path)
        return package

    def _compile(self, key: Hashable, buffers: Any, window: Tensor) -> Any:
        path = self.path(key)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # One at a time: torch names its folder after the step's code, not its weights.
        with FileLock(path.parent / "lock"):
            package = self._load(key)  # by a process that was before this one
            if package is None:
                made = compile_step(self.model, self.step, buffers, window, self.per_row(buffers))
                package = load(made)
                keep(made, path)
                shutil.rmtree(made.parent, ignore_errors=True)
                forget_oldest(path.parent, KEPT_BYTES)
        return package


def compile_step(
    model: nn.Module, step: Step, buffers: Any, window: Tensor, per_row: Sequence[Tensor]
) -> Path:
    """Compile a step for any window and, if it has several rows, any number of them.

    Returns a package in a folder of torch's that holds nothing else. RuntimeError where there is
    no compiler.
    """
    if not (shutil.which("g++") or shutil.which("clang++")):
        raise RuntimeError("no C++ compiler (g++) was found")
    several = all(len(buffer) > 1 for buffer in per_row)
    exported = ExportedStep(model, step, buffers)
    tensors = [leaf for leaf in exported.leaves if isinstance(leaf, Tensor)]
    # DYNAMIC is an error, not another package, where the step turns out to fit one size only.
    open_first = {0: torch.export.Dim.DYNAMIC}
    sizes = [
        open_first if several and any(tensor is buffer for buffer in per_row) else None
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
        write_text(digest_file(path), file_digest(part))
        os.replace(part, path)

"""Files that appear complete or not at all, and the digest that identifies tensors."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path that is renamed to `path` if the block succeeds, else removed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        # safetensors makes files that only their owner may read; follow the folder instead.
        temporary.chmod(path.parent.stat().st_mode & 0o666)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file; a reader never sees half of it."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names, types, shapes and values, in 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]

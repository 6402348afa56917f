"""Functions of many rows without a gradient, computed for as many as fit into a fixed memory."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CHUNK_BYTES = 2**29
"""Memory that a chunk may take. It is the same on every machine, and so are the chunks: other
chunks would round differently."""


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors made under it that still exist, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        result = function(*arguments, **(options or {}))
        # Views of what was there before, such as transposed weights, take no memory.
        given = _storages((arguments, options))
        for storage in _storages(result):
            if not any(storage is other for other in given):
                self._add(storage)
        return result

    def _add(self, storage: Any) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, size)

    def _remove(self, size: int) -> None:
        self.now -= size


def _storages(tree: Any) -> list[Any]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def rows_at_once(function: Callable[..., Any], *rows: Tensor) -> int:
    """How many rows `function` may take at a time, by the memory that the first one takes."""
    with LiveBytes() as memory:
        function(*(each[:1] for each in rows))
    return max(1, CHUNK_BYTES // max(1, memory.peak))


def in_chunks(function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """`function(*rows)`, whose rows depend on the same rows of its arguments only."""
    if len(rows[0]) <= 1:
        return function(*rows)
    size = rows_at_once(function, *rows)
    parts = zip(*(each.split(size) for each in rows), strict=True)
    return torch.cat([function(*part) for part in parts])

"""Weights by name in one folder: NAME.safetensors, each with a hash of its values.

The safetensors format holds numbers only, so reading a file never runs code.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from dalle_mini_impl.files import atomic_write, remove_parts
from dalle_mini_impl.shipped.commands import command
from dalle_mini_impl.version import package_version


class RunError(ValueError):
    """A run that is missing, incomplete or does not match its configuration."""


class WeightsFolder:
    """The weights that a folder holds."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def weights_path(self, name: str) -> Path:
        """The file of the weights called `name`."""
        return self.path / f"{name}.safetensors"

    def has_weights(self, name: str) -> bool:
        """Whether the weights called `name` exist."""
        return self.weights_path(name).is_file()

    def save_weights(
        self, name: str, module_state: Mapping[str, torch.Tensor], **notes: str
    ) -> None:
        """Write a state dict, a hash of its values, and `notes` on what it was trained with."""
        # Cloned because the format refuses tensors that share memory.
        tensors = {key: value.detach().cpu().clone() for key, value in module_state.items()}
        tensors = {key: value.contiguous() for key, value in tensors.items()}
        note = {
            "format": "pt",
            "hash": tensor_digest(tensors),
            "package_version": package_version(),
            **notes,
        }
        remove_parts(self.weights_path(name))
        with atomic_write(self.weights_path(name)) as temporary:
            save_file(tensors, temporary, metadata=note)

    def load_weights(self, name: str, module: nn.Module) -> None:
        """Fill `module`; RunError if a tensor is missing, does not fit or differs from its hash."""
        path = self.weights_path(name)
        tensors, note = self._read_weights(name)
        expected = module.state_dict()
        complaints = {
            "missing": sorted(expected.keys() - tensors.keys()),
            "unexpected": sorted(tensors.keys() - expected.keys()),
            "of another shape": [
                f"{key} {list(tensors[key].shape)} where {list(value.shape)} is configured"
                for key, value in expected.items()
                if key in tensors and tensors[key].shape != value.shape
            ],
        }
        wrong = "; ".join(f"{kind}: {first_few(keys)}" for kind, keys in complaints.items() if keys)
        if wrong:
            raise RunError(
                f"{path}: the weights do not fit {self.path / 'config.yaml'} ({wrong}); restore "
                "the configuration they were trained with, or train in another --run"
            )
        if note.get("hash") not in (None, tensor_digest(tensors)):
            raise RunError(f"{path}: damaged (its contents differ from its hash); copy it again")
        module.load_state_dict(tensors, strict=True)

    def weights_hash(self, name: str) -> str:
        """Identifies the values; what is computed from the weights is cached under it."""
        return self._note(name).get("hash") or tensor_digest(self._read_weights(name)[0])

    def fits_image_tokenizer(self, name: str) -> bool:
        """Whether the weights called `name` were trained with the run's current image tokenizer.

        Also true if the weights do not record one, or if the run has none.
        """
        noted = self._note(name).get("image_tokenizer")
        if noted is None or not self.has_weights("image_tokenizer"):
            return True
        return noted == self.weights_hash("image_tokenizer")

    def _note(self, name: str) -> dict[str, str]:
        with self._open(name) as file:
            return file.metadata() or {}

    def _read_weights(self, name: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        with self._open(name) as file:
            keys = list(file.keys())
            return {key: file.get_tensor(key) for key in keys}, file.metadata() or {}

    @contextmanager
    def _open(self, name: str) -> Iterator[Any]:
        try:
            with safe_open(self.weights_path(name), framework="pt") as file:
                yield file
        except (OSError, SafetensorError) as error:
            raise self._unreadable(name, error) from error

    def _unreadable(self, name: str, error: Exception) -> RunError:
        path = self.weights_path(name)
        if path.is_file():
            return RunError(f"{path}: not readable as safetensors ({error}); copy it again")
        present = ", ".join(sorted(file.stem for file in self.path.glob("*.safetensors"))) or "none"
        return RunError(
            f"{path}: no such weights (there: {present}); "
            f"`{command('train')} --run {self.path}` trains what is missing"
        )


def tensor_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """A hash of names, types, shapes and values, in 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def first_few(names: list[str], most: int = 4) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest

"""The index of a collection: one unit vector per image, in one safetensors file.

It also holds the name and stamp of every image, and which weights made the vectors. Scores are
cosine similarities, so the vector of any text or image may be the query.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.files import atomic_write
from dalle_mini_impl.runs.weights import tensor_digest

CHUNK = 65_536
"""Vectors compared at a time, to bound memory."""


@dataclass(frozen=True)
class Hit:
    """A found image."""

    name: str
    score: float
    """Cosine similarity with the query, in [-1, 1]."""


@dataclass(frozen=True)
class ImageIndex:
    """The images of one collection as vectors of one CLIP."""

    source: DataConfig
    """The collection; a local path is absolute."""
    clip: str
    """The CLIP as the user named it: run, or another library's model."""
    key: str
    """Identifies the CLIP's weights: vectors of other weights are not comparable."""
    names: tuple[str, ...] = ()
    stamps: tuple[str, ...] = ()
    """What changes with an image's content: a file's size and time, a hash of anything else."""
    vectors: Float[Tensor, "n e"] = field(default_factory=lambda: torch.zeros(0, 0))

    def __len__(self) -> int:
        return len(self.names)

    def search(self, query: Float[Tensor, "e"], top: int) -> list[Hit]:
        """The `top` images closest to a unit vector, closest first."""
        if not len(self):
            return []
        scores, rows = nearest(self.vectors, query[None], top)
        return self.hits(scores[0], rows[0])

    def hits(self, scores: Float[Tensor, "k"], rows: Int[Tensor, "k"]) -> list[Hit]:
        """Names and scores of rows."""
        pairs = zip(rows.tolist(), scores.tolist(), strict=True)
        return [Hit(self.names[row], score) for row, score in pairs]

    def save(self, path: Path) -> None:
        """Write the index; an existing file is replaced only when the new one is complete."""
        entries = json.dumps([self.names, self.stamps], ensure_ascii=True).encode()
        tensors = {
            "vectors": self.vectors.contiguous(),
            "entries": torch.from_numpy(np.frombuffer(entries, np.uint8).copy()),
        }
        note = {"clip": self.clip, "key": self.key, "source": self.source.model_dump_json()}
        note["digest"] = _digest(tensors, note)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            save_file(tensors, temporary, metadata=note)

    @classmethod
    def load(cls, path: Path) -> "ImageIndex":
        """Read an index. ConfigError if the file is missing, damaged or no index."""
        try:
            with safe_open(path, framework="pt") as file:
                note = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in ("vectors", "entries")}
            if note.pop("digest") != _digest(tensors, note):
                raise ValueError("its contents differ from its digest")
            vectors = tensors["vectors"]
            names, stamps = json.loads(tensors["entries"].numpy().tobytes())
            source = DataConfig.model_validate_json(note["source"])
            return cls(source, note["clip"], note["key"], tuple(names), tuple(stamps), vectors)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise ConfigError(
                f"{path}: not a readable image index ({error}); delete it and index again"
            ) from error


def _digest(tensors: dict[str, Tensor], note: dict[str, str]) -> str:
    text = tensor_digest(tensors) + json.dumps(note, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def nearest(
    vectors: Float[Tensor, "n e"], queries: Float[Tensor, "q e"], top: int
) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
    """Inner products and rows of the `top` vectors closest to each query, closest first.

    Exact; memory is bounded by CHUNK vectors. k is min(top, n).
    """
    if top < 1:
        raise ConfigError(f"top is {top}: ask for one image or more")
    scores = queries.new_empty(len(queries), 0)
    rows = torch.empty(len(queries), 0, dtype=torch.long, device=queries.device)
    for start in range(0, len(vectors), CHUNK):
        part = queries @ vectors[start : start + CHUNK].to(queries.device).T
        best = part.topk(min(top, part.shape[1]), dim=1)
        scores = torch.cat((scores, best.values), dim=1)
        rows = torch.cat((rows, best.indices + start), dim=1)
        kept = scores.topk(min(top, scores.shape[1]), dim=1)
        scores, rows = kept.values, rows.gather(1, kept.indices)
    return scores, rows


def index_path(folder: Path, source: DataConfig, clip: str) -> Path:
    """The file in `folder` for a collection and CLIP: a readable name and a hash of both."""
    stem = re.sub(r"[^\w-]+", "-", Path(source.path).name).strip("-") or "images"
    digest = hashlib.sha256(json.dumps([source.path, clip]).encode("utf-8", "surrogatepass"))
    return folder / f"{stem}-{digest.hexdigest()[:8]}.safetensors"

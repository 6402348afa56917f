"""Search among embedded images: an index on disk, and the exact nearest neighbors in it.

An index is one safetensors file: unit vectors, and the name and stamp of each image. `indexing`
makes and refreshes it. Scores are cosine similarities, so any text or image may be the query.
"""

import hashlib
import json
from collections.abc import Sequence
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

FAISS_FROM = 1_000_000
"""Images from which an approximate search is worth its index, where faiss is installed."""
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
    """The collection; its path is absolute where it is local."""
    clip: str
    """How the CLIP was named when the index was made."""
    key: str
    """The CLIP's weights: vectors of other weights are not comparable."""
    names: tuple[str, ...] = ()
    stamps: tuple[str, ...] = ()
    """Changes with an image's content: size and time of a file, a hash of anything else."""
    vectors: Float[Tensor, "n e"] = field(default_factory=lambda: torch.zeros(0, 0))

    def __len__(self) -> int:
        return len(self.names)

    def search(self, query: Float[Tensor, "e"], top: int) -> list[Hit]:
        """The `top` images closest to a unit vector, closest first."""
        if not len(self):
            return []
        scores, rows = nearest(self.vectors, query[None], top)
        return self._hits(scores[0], rows[0])

    def _hits(self, scores: Tensor, rows: Tensor) -> list[Hit]:
        pairs = zip(rows.tolist(), scores.tolist(), strict=True)
        return [Hit(self.names[row], score) for row, score in pairs]

    def save(self, path: Path) -> None:
        """Write the index whole or not at all."""
        entries = json.dumps([self.names, self.stamps], ensure_ascii=True).encode()
        tensors = {
            "vectors": self.vectors.contiguous(),
            "entries": torch.from_numpy(np.frombuffer(entries, np.uint8).copy()),
        }
        note = {"clip": self.clip, "key": self.key, "source": self.source.model_dump_json()}
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            save_file(tensors, temporary, metadata=note)

    @classmethod
    def load(cls, path: Path) -> "ImageIndex":
        """Read an index. ConfigError if the file is missing or something else."""
        try:
            with safe_open(path, framework="pt") as file:
                note = file.metadata() or {}
                vectors = file.get_tensor("vectors")
                names, stamps = json.loads(file.get_tensor("entries").numpy().tobytes())
            source = DataConfig.model_validate_json(note["source"])
            return cls(source, note["clip"], note["key"], tuple(names), tuple(stamps), vectors)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise ConfigError(
                f"{path}: not a readable image index ({error}); delete it and index again"
            ) from error


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


def search_all(
    indexes: Sequence[ImageIndex], query: Float[Tensor, "e"], top: int, folder: Path | None = None
) -> list[tuple[ImageIndex, Hit]]:
    """The best `top` images of several collections.

    folder: where faiss may keep its graphs; above FAISS_FROM images it is used if installed.
    """
    found = []
    for index in indexes:
        approximate = folder is not None and len(index) >= FAISS_FROM and faiss_installed()
        hits = (
            search_faiss(index, query, top, folder)
            if approximate and folder is not None
            else index.search(query.cpu(), top)
        )
        found += [(index, hit) for hit in hits]
    return sorted(found, key=lambda pair: -pair[1].score)[:top]


def faiss_installed() -> bool:
    """Whether the extra `search` is there."""
    try:
        import faiss  # noqa: F401
    except ImportError:
        return False
    return True


def search_faiss(index: ImageIndex, query: Float[Tensor, "e"], top: int, folder: Path) -> list[Hit]:
    """As `ImageIndex.search`, approximately, through an HNSW graph kept in `folder`.

    The graph (Malkov and Yashunin 2016, arXiv 1603.09320) is built at the first search.
    """
    import faiss

    content = json.dumps([index.key, index.source.path, index.names, index.stamps]).encode()
    path = folder / f"{hashlib.sha256(content).hexdigest()[:16]}.faiss"
    if path.is_file():
        graph = faiss.read_index(str(path))
    else:
        graph = faiss.IndexHNSWFlat(index.vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
        graph.add(index.vectors.numpy())
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            faiss.write_index(graph, str(temporary))
    graph.hnsw.efSearch = max(64, 2 * top)
    scores, rows = graph.search(query.cpu().numpy()[None], min(top, len(index)))
    # Where the graph finds fewer, the places left over hold row -1.
    found = torch.from_numpy(rows[0]) >= 0
    return index._hits(torch.from_numpy(scores[0])[found], torch.from_numpy(rows[0])[found])

"""Search over several image indexes: exact, or approximate with faiss if there are many images."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from dalle_mini_impl.files import atomic_write
from dalle_mini_impl.retrieval.image_index import Hit, ImageIndex

FAISS_FROM = 1_000_000
"""From this many images on, faiss is used if it is installed."""


def search_all(
    indexes: Sequence[ImageIndex], query: Float[Tensor, "e"], top: int, folder: Path | None = None
) -> list[tuple[ImageIndex, Hit]]:
    """The best `top` images of several collections.

    folder: where faiss may keep its graphs; without one, every search is exact.
    """
    found = []
    for index in indexes:
        if folder is not None and len(index) >= FAISS_FROM and faiss_installed():
            hits = search_faiss(index, query, top, folder)
        else:
            hits = index.search(query.cpu(), top)
        found += [(index, hit) for hit in hits]
    return sorted(found, key=lambda pair: -pair[1].score)[:top]


def faiss_installed() -> bool:
    """Whether the extra `search` is installed."""
    try:
        import faiss  # noqa: F401
    except ImportError:
        return False
    return True


def search_faiss(index: ImageIndex, query: Float[Tensor, "e"], top: int, folder: Path) -> list[Hit]:
    """Like `ImageIndex.search`, but approximate: through an HNSW graph that is kept in `folder`.

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
    # faiss fills up with row -1 if the graph finds fewer.
    found = torch.from_numpy(rows[0]) >= 0
    return index.hits(torch.from_numpy(scores[0])[found], torch.from_numpy(rows[0])[found])

"""An image index finds exactly the nearest vectors, and is saved and loaded as it is."""

import pytest
import torch

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.retrieval import image_index
from dalle_mini_impl.retrieval.image_index import ImageIndex, nearest
from dalle_mini_impl.retrieval.refresh import refresh
from tests.color_run import empty_index


def test_nearest_is_exact_whatever_the_chunks(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(103, 8, generator=generator)
    queries = torch.randn(3, 8, generator=generator)
    expected = (queries @ vectors.T).topk(9, dim=1)
    for chunk in (4, 50, 1000):
        monkeypatch.setattr(image_index, "CHUNK", chunk)
        scores, rows = nearest(vectors, queries, 9)
        assert torch.equal(rows, expected.indices)
        torch.testing.assert_close(scores, expected.values)
    assert nearest(vectors[:2], queries, 9)[1].shape == (3, 2)
    with pytest.raises(ConfigError, match="top is 0"):
        nearest(vectors, queries, 0)


def test_a_saved_index_is_loaded_as_it_was(clip, folder, tmp_path):
    index, _ = refresh(empty_index(folder, clip), clip)
    index.save(tmp_path / "i" / "index.safetensors")
    loaded = ImageIndex.load(tmp_path / "i" / "index.safetensors")
    assert (loaded.names, loaded.stamps, loaded.key) == (index.names, index.stamps, index.key)
    assert loaded.source == index.source
    assert torch.equal(loaded.vectors, index.vectors)
    content = bytearray((tmp_path / "i" / "index.safetensors").read_bytes())
    for at in (content.index(b'"clip":"') + 9, len(content) - 2):
        damaged = content.copy()
        damaged[at] ^= 1
        (tmp_path / "damaged.safetensors").write_bytes(damaged)
        with pytest.raises(ConfigError, match="differ from its digest"):
            ImageIndex.load(tmp_path / "damaged.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"x")
    with pytest.raises(ConfigError, match="not a readable image index"):
        ImageIndex.load(tmp_path / "damaged.safetensors")

"""Evaluation takes as many rows at a time as a fixed amount of memory allows."""

import pytest
import torch

from dalle_mini_impl.kernels import chunks
from dalle_mini_impl.kernels.chunks import LiveBytes, in_chunks, rows_at_once

ROW = 4 * 1000


def widen(x: torch.Tensor) -> torch.Tensor:
    """A row of ten numbers to ten, over two tensors of a thousand."""
    wide = (x.repeat(1, 100) + 1) * 2
    return wide[:, :10].clone()


def test_the_peak_is_what_exists_at_once():
    with LiveBytes() as memory:
        a = torch.zeros(1000)
        b = a + 1
        del a, b
        torch.zeros(500)
    assert memory.peak == 2 * ROW
    assert memory.now == 0


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_rows_are_as_many_as_fit(monkeypatch, context):
    sizes = []

    def counted(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return widen(x) + y

    monkeypatch.setattr(chunks, "CHUNK_BYTES", 10 * ROW)
    x, y = torch.rand(33, 10), torch.rand(33, 10)
    with context():
        torch.testing.assert_close(in_chunks(counted, x, y), widen(x) + y)
        assert sizes[0] == 1
        assert 2 <= max(sizes) <= 5
        assert sum(sizes[1:]) == 33
        monkeypatch.setattr(chunks, "CHUNK_BYTES", 1)
        assert rows_at_once(widen, x) == 1
        assert in_chunks(widen, x[:0]).shape == (0, 10)


def test_weights_and_other_rows_are_not_counted(monkeypatch):
    weight, sizes = torch.rand(50_000, 10), []

    def project(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return widen(x) + x @ weight.T[:, :10]

    monkeypatch.setattr(chunks, "CHUNK_BYTES", 40 * ROW)
    with torch.no_grad():
        in_chunks(project, torch.rand(5000, 10))
    assert max(sizes) > 10


def test_a_chunk_stays_within_its_memory(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 40 * ROW)
    with LiveBytes() as memory, torch.no_grad():
        in_chunks(widen, torch.rand(500, 10))
    assert memory.peak < (40 + 5 + 5) * ROW + 4000  # The chunk, the rows, and what they become.

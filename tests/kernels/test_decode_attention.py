"""Unfused attention of one query equals torch's kernel, also with a text that rows share."""

import pytest
import torch

from dalle_mini_impl.kernels import decode_attention as module
from dalle_mini_impl.kernels.decode_attention import (
    CacheView,
    decode_attention,
    fast,
    plain,
    with_shared_prefix,
)

TEXT, LENGTH = 3, 19
ROUNDED = {"atol": 0.03, "rtol": 0.03}


def view(positions: str, prefix_rows: torch.Tensor | None = None) -> CacheView:
    """Of a window of the cache, or of scattered positions, each with some that are masked."""
    if positions == "window":
        mask = torch.arange(LENGTH - 2)[None] < LENGTH - 5
        return CacheView(slice(0, LENGTH - 2), mask, TEXT, prefix_rows)
    scattered = torch.cat((torch.arange(TEXT), torch.tensor([TEXT + 1, TEXT + 4, TEXT])))
    return CacheView(scattered, torch.arange(TEXT + 3)[None] < TEXT + 2, TEXT, prefix_rows)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, {}), (torch.bfloat16, ROUNDED)])
@pytest.mark.parametrize("positions", ["window", "scattered"])
def test_fast_equals_plain(positions, dtype, near):
    query, keys, values = torch.randn(3, 2, 4, LENGTH, 8)
    expected = plain(query[:, :, :1], keys, values, view(positions))
    found = fast(*(x.to(dtype) for x in (query[:, :, :1], keys, values)), view(positions))
    assert found.shape == expected.shape
    torch.testing.assert_close(found.float(), expected, **near)


@pytest.mark.parametrize("positions", ["window", "scattered"])
def test_a_shared_text_is_read_from_the_rows_that_share_it(positions):
    query, keys, values = torch.randn(3, 5, 4, LENGTH, 8)
    rows = torch.tensor([0, 0, 2, 2, 2])
    keys[:, :, :TEXT], values[:, :, :TEXT] = keys[rows, :, :TEXT], values[rows, :, :TEXT]
    expected = plain(query[:, :, :1], keys, values, view(positions))
    others = [1, 3, 4]
    keys[others, :, :TEXT], values[others, :, :TEXT] = torch.nan, torch.nan
    found = with_shared_prefix(query[:, :, :1], keys, values, view(positions, rows))
    torch.testing.assert_close(found, expected)


def test_eager_decoding_takes_the_fused_kernel(monkeypatch):
    monkeypatch.setattr(module, "fast", None)
    query, keys, values = torch.randn(3, 2, 4, LENGTH, 8)
    decode_attention(query[:, :, :1], keys, values, view("window"))

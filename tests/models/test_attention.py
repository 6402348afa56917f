"""The attention patterns of the paper, position by position."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch.utils.flop_counter import FlopCounterMode

from dalle_mini_impl.kernels import attention as scaled_dot_product
from dalle_mini_impl.kernels.attention import (
    Seen,
    attend,
    attend_by_text,
    attend_in_parts,
    attend_once,
)
from dalle_mini_impl.models.attention import block_mask, dalle_patterns, pattern_mask

ROUNDED = {"atol": 0.03, "rtol": 0.03}
TEXT, GRID = 3, 4
LENGTH = TEXT + GRID * GRID


def seen(pattern: str, row: int, column: int, window: int = 3) -> set[tuple[int, int]]:
    mask = pattern_mask(pattern, TEXT, LENGTH, GRID, window)
    keys = mask[TEXT + row * GRID + column, TEXT:].nonzero().flatten().tolist()
    return {divmod(key, GRID) for key in keys}


@pytest.mark.parametrize("pattern", ["full", "row", "column", "convolution"])
def test_patterns_are_causal_and_see_all_text(pattern):
    mask = pattern_mask(pattern, TEXT, LENGTH, GRID)
    assert not mask.triu(1).any()
    assert mask[TEXT:, :TEXT].all()
    assert mask.diagonal().all()


def test_row_sees_the_previous_grid_positions():
    assert seen("row", 2, 1) == {(2, 1), (2, 0), (1, 3), (1, 2), (1, 1)}


def test_column_sees_its_own_column():
    assert seen("column", 2, 1) == {(2, 1), (1, 1), (0, 1)}


def test_convolution_sees_its_neighborhood():
    assert seen("convolution", 2, 1) == {(2, 1), (2, 0), (1, 0), (1, 1), (1, 2)}


def test_order_of_patterns_is_the_papers():
    assert dalle_patterns(6) == ["row", "column", "row", "row", "row", "convolution"]
    sixty_four = dalle_patterns(64)
    assert [i + 1 for i, p in enumerate(sixty_four) if p == "column"] == list(range(2, 64, 4))
    assert sixty_four[-1] == "convolution"


@pytest.mark.parametrize(("kind", "near"), [(torch.float32, {}), (torch.bfloat16, ROUNDED)])
@pytest.mark.parametrize(
    ("causal", "pattern", "strips"),
    [(True, None, 1), (True, None, 2), (True, None, 4), (False, None, 4), (False, "row", 4)],
)
def test_attention_written_out_equals_the_fused_one(
    causal, pattern, strips, kind, near, monkeypatch
):
    monkeypatch.setattr(scaled_dot_product, "LONG", LENGTH if strips > 1 else LENGTH + 1)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: strips == 4)
    mask = pattern_mask(pattern, TEXT, LENGTH, GRID) if pattern else None
    inputs = torch.randn(3, 2, 4, LENGTH, 8, requires_grad=True)
    upstream = torch.randn(2, 4, LENGTH, 8)
    fused = F.scaled_dot_product_attention(*inputs, attn_mask=mask, is_causal=causal)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
        written = attend_in_parts(*inputs.to(kind), mask, causal)
    assert written.dtype == kind
    torch.testing.assert_close(written.float(), fused, **near)
    (ours,) = torch.autograd.grad(written, inputs, upstream.to(kind))
    (theirs,) = torch.autograd.grad(fused, inputs, upstream)
    torch.testing.assert_close(ours, theirs, **near)


@pytest.mark.parametrize(
    ("length", "compiling", "share"),
    [(64, False, 1), (64, True, 3 / 4), (256, False, 3 / 4), (256, True, 5 / 8)],
)
def test_causal_strips_leave_out_most_of_what_is_masked(length, compiling, share, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    inputs = torch.randn(3, 1, 2, length, 4, requires_grad=True)
    with FlopCounterMode(display=False) as flops:
        attend_in_parts(*inputs, None, True).sum().backward()
    assert flops.get_total_flops() == share * 6 * 2 * 2 * length**2 * 4


@pytest.mark.parametrize(
    ("kind", "compiling", "causal", "width", "written"),
    [
        (torch.bfloat16, False, True, 8, True),
        (torch.bfloat16, False, False, 8, True),
        (torch.float32, True, True, 48, True),
        (torch.float32, False, True, 48, False),
        (torch.float32, True, False, 48, False),
        (torch.float32, True, True, 32, False),
    ],
)
def test_training_writes_attention_out_where_that_is_faster(
    kind, compiling, causal, width, written, monkeypatch
):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    monkeypatch.setattr(scaled_dot_product, "attend_in_parts", lambda query, *_: query * 0)
    inputs = torch.randn(3, 2, 4, LENGTH, width, dtype=kind, requires_grad=True)
    assert attend(*inputs, None, causal).any() != written
    assert attend(*inputs.detach(), None, causal).any()
    monkeypatch.setattr(scaled_dot_product, "LARGEST_SCORES", 2 * 4 * LENGTH**2 - 1)
    assert attend(*inputs, None, causal).any() == (kind == torch.float32)


def test_attention_of_one_query_in_bf16_is_written_out(monkeypatch):
    monkeypatch.setattr(scaled_dot_product, "attend", None)
    query, key, value = torch.randn(3, 2, 4, LENGTH, 8).bfloat16()
    mask = torch.arange(LENGTH)[None] < LENGTH - 5
    found = attend_once(query[:, :, :1], key, value, Seen(slice(0, LENGTH), mask, TEXT, None))
    fused = F.scaled_dot_product_attention(
        query[:, :, :1].float(), key.float(), value.float(), attn_mask=mask
    )
    expected = rearrange(fused, "b h 1 d -> b 1 (h d)")
    torch.testing.assert_close(found.float(), expected, **ROUNDED)


@pytest.mark.parametrize("positions", ["window", "pattern"])
def test_attention_by_text_reads_it_from_the_leaders(positions):
    query, keys, values = torch.randn(3, 5, 4, LENGTH, 8)
    leaders = torch.tensor([0, 0, 2, 2, 2])
    keys[:, :, :TEXT], values[:, :, :TEXT] = keys[leaders, :, :TEXT], values[leaders, :, :TEXT]
    if positions == "window":
        mask = torch.arange(LENGTH - 2)[None] < LENGTH - 5
        seen = Seen(slice(0, LENGTH - 2), mask, TEXT, leaders)
    else:
        places = torch.cat((torch.arange(TEXT), torch.tensor([TEXT + 1, TEXT + 4, TEXT])))
        mask = torch.arange(TEXT + 3)[None] < TEXT + 2
        seen = Seen(places, mask, TEXT, leaders)
    expected = attend_once(query[:, :, :1], keys, values, seen)
    followers = [1, 3, 4]
    keys[followers, :, :TEXT], values[followers, :, :TEXT] = torch.nan, torch.nan
    torch.testing.assert_close(attend_by_text(query[:, :, :1], keys, values, seen), expected)


@pytest.mark.parametrize("pattern", ["full", "row", "column", "convolution"])
def test_block_masks_hide_what_dense_masks_hide(pattern):
    text, grid = 20, 16
    length = text + grid * grid - 1
    dense = pattern_mask(pattern, text, length, grid)
    blocks = block_mask(pattern, text, length, grid)
    position = torch.arange(length)
    zero = torch.zeros((), dtype=torch.long)
    seen = blocks.mask_mod(zero, zero, position[:, None], position[None, :])
    assert torch.equal(seen, dense)
    size = blocks.BLOCK_SIZE[0]
    padded = F.pad(dense, (0, -length % size, 0, -length % size))
    used = padded.unfold(0, size, size).unfold(1, size, size).flatten(2).any(dim=2)
    assert torch.equal(blocks.to_dense()[0, 0].bool(), used)
    assert not used.all()


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*flex_attention.*")
@pytest.mark.parametrize("pattern", ["row", "column", "convolution"])
def test_attention_in_blocks_equals_the_masked_one(pattern):
    query, key, value = torch.randn(3, 2, 4, LENGTH, 16)
    blocks = block_mask(pattern, TEXT, LENGTH, GRID)
    dense = pattern_mask(pattern, TEXT, LENGTH, GRID)
    torch.testing.assert_close(
        attend(query, key, value, blocks, causal=False),
        attend(query, key, value, dense, causal=False),
    )

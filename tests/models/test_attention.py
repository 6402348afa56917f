"""The attention patterns of the paper, position by position."""

import pytest
import torch

from dalle_mini_impl.models.attention import (
    FullVisibility,
    PatternVisibility,
    dalle_patterns,
    pattern_mask,
)

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


@pytest.mark.parametrize("pattern", ["row", "column", "convolution"])
def test_decoding_sees_what_the_mask_shows(pattern):
    visibility = PatternVisibility(pattern, TEXT, LENGTH, GRID)
    for index in range(GRID * GRID):
        view = visibility.view(torch.tensor([index]), torch.arange(LENGTH), TEXT, None)
        shown = view.positions[view.mask[0]].tolist()
        expected = visibility.mask[TEXT + index].nonzero().flatten().tolist()
        assert sorted(shown) == expected
        assert view.mask[0, : view.text].all()


def test_full_decoding_sees_all_before_it_within_its_window():
    view = FullVisibility().view(torch.tensor([2]), torch.arange(9), TEXT, None)
    assert view.positions == slice(0, 9)
    assert view.mask[0].tolist() == [True] * (TEXT + 3) + [False] * (9 - TEXT - 3)

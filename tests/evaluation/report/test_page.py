"""Curves, tables and numbers of a page."""

import re

import pytest

from dalle_mini_impl.evaluation.report.page import LONG, Table, curve, number, page


def test_curves_skip_what_is_not_finite():
    assert curve("loss", [(1, 2.0), (2, float("nan"))]) == ""
    svg = curve("a < b", [(1, 2.0), (2, float("inf")), (3, 1.0)])
    assert "nan" not in svg
    assert "inf" not in svg
    assert "a &lt; b" in svg
    assert "(log)" in curve("loss", [(1, 100.0), (2, 1.0)])


def test_tables_read_the_same_in_a_terminal_and_on_a_page():
    table = Table("Scores", ["task", "share"], [["<color>", "1.0 %"]], "a note")
    lines = str(table).splitlines()
    assert lines == ["Scores", "task     share", "-------  -----", "<color>  1.0 %", "a note"]
    assert "<td>&lt;color&gt;</td>" in table.to_html()
    assert [number(v) for v in (None, 1234567, 0.123456, 12345.6)] == [
        "–", "1,234,567", "0.1235", "12,346",
    ]  # fmt: skip


@pytest.mark.parametrize("high", [1.0, 0.0001234, 9_876_543.21, 1.234e-7])
def test_a_curve_has_room_for_the_labels_of_its_axes(high):
    svg = curve("loss", [(1_000, high), (1_234_567, high / 3)])
    for at, label in re.findall(r'<text x="([\d.]+)"[^>]*text-anchor="end">([^<]*)</text>', svg):
        assert float(at) >= 6 * len(label), label
    assert ">step 1,000<" in svg
    assert ">1,234,567<" in svg
    width = int(re.search(r'viewBox="0 0 (\d+) ', svg)[1])
    assert width <= 328  # What a telephone of 360 pixels leaves between the margins.


def test_long_cells_wrap_and_tables_scroll_in_their_box():
    html = Table("", ["name", "values"], [["a", "loss 1.0  " * 9], ["b", "x" * LONG]]).to_html()
    assert html.count('<td class="text">') == 1
    assert html.startswith('<div class="table"><table>')
    styled = page("a", [])
    assert re.search(r"\.table[^{]*\{ overflow-x: auto; \}", styled)
    assert "@media (prefers-color-scheme: dark)" in styled

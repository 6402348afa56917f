"""Tables and numbers of a page."""

import re

from dalle_mini_impl.evaluation.report.page import LONG, Table, number, page


def test_tables_read_the_same_in_a_terminal_and_on_a_page():
    table = Table("Scores", ["task", "share"], [["<color>", "1.0 %"]], "a note")
    lines = str(table).splitlines()
    assert lines == ["Scores", "task     share", "-------  -----", "<color>  1.0 %", "a note"]
    assert "<td>&lt;color&gt;</td>" in table.to_html()
    assert [number(v) for v in (None, 1234567, 0.123456, 12345.6)] == [
        "–", "1,234,567", "0.1235", "12,346",
    ]  # fmt: skip


def test_long_cells_wrap_and_tables_scroll_in_their_box():
    html = Table("", ["name", "values"], [["a", "loss 1.0  " * 9], ["b", "x"]]).to_html()
    assert html.count('<td class="text">') == 2
    assert '<th class="text">values</th>' in html
    assert 'class="text"' not in Table("", ["name"], [["x" * LONG]]).to_html()
    assert html.startswith('<div class="table"><table>')
    styled = page("a", [])
    assert re.search(r"\.table[^{]*\{ overflow-x: auto; \}", styled)
    assert "@media (prefers-color-scheme: dark)" in styled

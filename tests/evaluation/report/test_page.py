"""Curves, tables and numbers of a page."""

from dalle_mini_impl.evaluation.report.page import Table, curve, number


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

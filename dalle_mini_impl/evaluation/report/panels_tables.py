"""The tables of the panels suite."""

from dalle_mini_impl.data.synthetic.panels import CHANGE_KINDS
from dalle_mini_impl.evaluation.report.page import Table
from dalle_mini_impl.evaluation.report.suite_tables import Layout, Scores, suite_tables
from dalle_mini_impl.evaluation.suites.panels import ALL_CHANGES, ASPECTS

GROUPS = (*CHANGE_KINDS, ALL_CHANGES)
LAYOUT = Layout(GROUPS, GROUPS, ASPECTS, "the lower half", "lower halves as asked")


def panels_tables(scores: Scores) -> list[Table]:
    """The tables that every suite has."""
    return suite_tables(scores, LAYOUT)

"""The tables of the panels suite."""

from dalle_mini_impl.data.synthetic.panels import CHANGE_KINDS
from dalle_mini_impl.evaluation.report.page import Table
from dalle_mini_impl.evaluation.report.suite_tables import (
    Scores,
    best_of_table,
    guidance_tables,
    kinds_of_claim_table,
    rankings_table,
)
from dalle_mini_impl.evaluation.suites.panels import ALL_CHANGES, ASPECTS

GROUPS = (*CHANGE_KINDS, ALL_CHANGES)
FIRST = "the lower half"
WHAT = "lower halves as asked"


def panels_tables(scores: Scores) -> list[Table]:
    """The comparison of guidance scales, then the tables of each scale."""
    tables = guidance_tables(scores, GROUPS, FIRST, WHAT)
    for guidance in scores.guidances:
        tables += [
            best_of_table(scores, guidance, GROUPS, FIRST, WHAT),
            kinds_of_claim_table(scores, guidance, GROUPS, FIRST, ASPECTS),
            rankings_table(scores, guidance, GROUPS, FIRST, WHAT),
        ]
    return tables

"""The tables of the shapes suite."""

from dalle_mini_impl.data.synthetic.claims import CLAIM_KINDS
from dalle_mini_impl.evaluation.report.page import Table
from dalle_mini_impl.evaluation.report.suite_tables import (
    WILSON,
    Layout,
    Scores,
    shown,
    suite_tables,
)
from dalle_mini_impl.evaluation.suites.core import STRICT
from dalle_mini_impl.evaluation.suites.shapes import ALL_TASKS, SCENES, TASKS

LAYOUT = Layout(SCENES, (*SCENES, ALL_TASKS), CLAIM_KINDS, "captions", "all claims at once")


def shapes_tables(scores: Scores) -> list[Table]:
    """The tables that every suite has, and one of the tasks at each guidance scale."""
    return suite_tables(scores, LAYOUT, tasks_table)


def tasks_table(scores: Scores, guidance: float) -> Table:
    """Each task by its own kinds of claim, and by all claims."""
    most = scores.most
    columns = ["task"]
    columns += ["first" if count == 1 else f"best of {count}" for count in scores.counts]
    columns += [f"oracle of {most}", f"all claims, best of {most}", f"strict, best of {most}"]
    rows = []
    for name, row in scores.rows((*TASKS, ALL_TASKS)):
        cells = [
            scores.cell(guidance, row, "task", count, "none" if count == 1 else scores.ranking)
            for count in scores.counts
        ]
        cells.append(scores.cell(guidance, row, "task", ranking="oracle"))
        cells += [scores.cell(guidance, row), scores.cell(guidance, row, STRICT)]
        rows.append([name, *map(shown, cells)])
    note = (
        "A task scores its own kinds of claim; all claims adds size, count and the rest; strict "
        "asks for clean shapes without specks as well."
    )
    return Table(f"Guidance {guidance:g}: tasks", columns, rows, f"{note} {WILSON}")

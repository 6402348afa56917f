"""The tables of the shapes suite."""

from dalle_mini_impl.data.synthetic.claims import CLAIM_KINDS
from dalle_mini_impl.evaluation.report.page import Table
from dalle_mini_impl.evaluation.report.suite_tables import (
    WILSON,
    Scores,
    best_of_table,
    guidance_tables,
    kinds_of_claim_table,
    rankings_table,
    shown,
)
from dalle_mini_impl.evaluation.suites.shapes import ALL_TASKS, SCENES, TASKS

COMPARED = (*SCENES, ALL_TASKS)
"""The groups that guidance scales and rankings are compared on."""

FIRST = "captions"
WHAT = "all claims at once"


def shapes_tables(scores: Scores) -> list[Table]:
    """The comparison of guidance scales, then the tables of each scale."""
    tables = guidance_tables(scores, COMPARED, FIRST, WHAT)
    for guidance in scores.guidances:
        tables += [
            scenes_table(scores, guidance),
            kinds_table(scores, guidance),
            tasks_table(scores, guidance),
            rankings_table(scores, guidance, COMPARED, FIRST, WHAT),
        ]
    return tables


def scenes_table(scores: Scores, guidance: float) -> Table:
    """All claims at once for captions of scenes."""
    return best_of_table(scores, guidance, SCENES, FIRST, WHAT)


def kinds_table(scores: Scores, guidance: float) -> Table:
    """Each kind of claim in captions of scenes."""
    return kinds_of_claim_table(scores, guidance, SCENES, FIRST, CLAIM_KINDS)


def tasks_table(scores: Scores, guidance: float) -> Table:
    """Each task by its own kinds of claim, and by all claims."""
    most = scores.most
    columns = ["task"]
    columns += ["first" if count == 1 else f"best of {count}" for count in scores.counts]
    columns += [f"oracle of {most}", f"all claims, best of {most}"]
    rows = []
    for name, row in scores.rows((*TASKS, ALL_TASKS)):
        cells = [
            scores.cell(guidance, row, "task", count, "none" if count == 1 else scores.ranking)
            for count in scores.counts
        ]
        cells.append(scores.cell(guidance, row, "task", ranking="oracle"))
        cells.append(scores.cell(guidance, row))
        rows.append([name, *map(shown, cells)])
    note = "A task scores its own kinds of claim; all claims adds size, count and the rest."
    return Table(f"Guidance {guidance:g}: tasks", columns, rows, f"{note} {WILSON}")

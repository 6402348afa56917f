"""The panels suite's tables, for the terminal and the page, and its failures to look at."""

from collections.abc import Iterator, Sequence

from dalle_mini_impl.data.synthetic.panels import CHANGE_KINDS, Panel
from dalle_mini_impl.evaluation.judges.panels import ASPECTS
from dalle_mini_impl.evaluation.report.page import (
    Table,
    heading,
    image_tile,
    note,
    page,
    row,
    share,
    subheading,
)
from dalle_mini_impl.evaluation.report.shapes_page import SHOWN, WILSON, Scores
from dalle_mini_impl.evaluation.suites.panels import OVERALL, PanelOutcome
from dalle_mini_impl.evaluation.suites.prompts import HALVES
from dalle_mini_impl.evaluation.suites.shapes import RANKINGS

GROUPS: tuple[str, ...] = (*CHANGE_KINDS, OVERALL)


def best_panel_guidance(scores: Scores) -> float:
    """The scale with the highest mean over the halves, as shipped."""
    return max(
        scores.guidances,
        key=lambda guidance: sum(
            scores.value(guidance, OVERALL, half, scores.shipped, scores.most) for half in HALVES
        ),
    )


def panel_tables(scores: Scores) -> list[Table]:
    """Lower halves that are wholly right, and right in each aspect, at every guidance scale."""
    return [
        table
        for guidance in scores.guidances
        for table in (
            _changes(scores, guidance),
            _aspects(scores, guidance),
            _rankings(scores, guidance),
        )
    ]


def panel_page(
    title: str, tables: Sequence[Table], outcomes: Sequence[PanelOutcome], best: float
) -> str:
    """The page: tables, then failures at the best guidance scale."""
    return page(title, [table.to_html() for table in tables] + list(panel_failures(outcomes, best)))


def panel_failures(outcomes: Sequence[PanelOutcome], guidance: float) -> Iterator[str]:
    """Chosen images whose lower half is not what was asked, in their groups."""
    yield heading(f"Failures at guidance {guidance:g}")
    yield note(
        "The image that the run's ranking chose: the upper half is given, the lower one painted; "
        "what is wrong with it, and what the judge saw in it."
    )
    groups: dict[tuple[str, str], list[PanelOutcome]] = {}
    for outcome in outcomes:
        if outcome.guidance == guidance and outcome.failure is not None:
            key = (outcome.prompt.request.change.kind, outcome.prompt.half)
            groups.setdefault(key, []).append(outcome)
    for (group, half), failed in groups.items():
        yield subheading(f"{group}, {half.replace('_', ' ')}: {len(failed)}")
        yield row(_tile(outcome) for outcome in failed[:SHOWN])


def _tile(outcome: PanelOutcome) -> str:
    failure = outcome.failure
    assert failure is not None
    wrong = ", ".join(name for name, held in outcome.truths[failure.place].items() if not held)
    lines = [outcome.prompt.caption, f"wrong: {wrong}", f"seen below: {_words(failure.lower)}"]
    lines.append(f"seed {outcome.seed + failure.place}")
    return image_tile(failure.image, "\n".join(lines), side=128)


def _words(panel: Panel) -> str:
    things = [f"{item.style} {item.color} {item.shape}" for item in panel.objects]
    return f"{', '.join(things) or 'nothing'} on {panel.background}"


def _rows(scores: Scores) -> Iterator[tuple[str, str, str]]:
    """Name, group and half of each row."""
    for group in GROUPS:
        for half in HALVES:
            if group in scores.groups:
                yield f"{group}, {half.replace('_', ' ')}", group, half


def _changes(scores: Scores, guidance: float) -> Table:
    columns, rows = ["the lower half"], []
    for count in scores.counts:
        columns += ["first"] if count == 1 else [f"best of {count}", f"oracle of {count}"]
    for name, group, half in _rows(scores):
        cells = [name]
        for count in scores.counts:
            for ranking in ("none",) if count == 1 else (scores.shipped, "oracle"):
                cells.append(scores.text(guidance, group, half, "all claims", count, ranking))
        rows.append(cells)
    title = f"Guidance {guidance:g}: lower halves as asked, ranked by {scores.shipped}"
    return Table(title, columns, rows, WILSON)


def _aspects(scores: Scores, guidance: float) -> Table:
    rows = [
        [
            name,
            *(scores.text(guidance, group, half, a, scores.most, scores.shipped) for a in ASPECTS),
        ]
        for name, group, half in _rows(scores)
    ]
    title = f"Guidance {guidance:g}: each aspect, best of {scores.most} by {scores.shipped}"
    return Table(title, ["the lower half", *ASPECTS], rows, WILSON)


def _rankings(scores: Scores, guidance: float) -> Table:
    most = scores.most
    rows = []
    for name, group, half in _rows(scores):
        cells = [scores.text(guidance, group, half, "all claims", most, r) for r in RANKINGS]
        values: dict[str, float] = {
            r: scores.value(guidance, group, half, r, most) for r in RANKINGS
        }
        room = values["oracle"] - values["none"]
        closed = share((values[scores.shipped] - values["none"]) / room) if room > 0 else "–"
        rows.append([name, *cells, closed])
    title = f"Guidance {guidance:g}: lower halves as asked by ranking, best of {most}"
    columns = ["the lower half", *RANKINGS, f"closed by {scores.shipped}"]
    return Table(
        title, columns, rows, f"Closed: the share of the distance from none to oracle. {WILSON}"
    )

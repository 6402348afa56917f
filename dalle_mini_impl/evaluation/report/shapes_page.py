"""The shapes suite's tables, for the terminal and the page, and its failures to look at."""

from collections.abc import Iterator, Sequence

from dalle_mini_impl.data.synthetic.claims import CLAIM_KINDS
from dalle_mini_impl.data.synthetic.scenes import Scene
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
from dalle_mini_impl.evaluation.suites.prompts import HALVES, TASKS, interval
from dalle_mini_impl.evaluation.suites.shapes import RANKINGS, SCENES, Cell, Outcome, group_of

SHOWN = 8
"""Failures shown of each group and half."""

WILSON = "Percent of prompts, with Wilson's 95 % interval in parentheses."


class Scores:
    """Cells by what they are about."""

    def __init__(self, cells: Sequence[Cell], shipped: str) -> None:
        self.cells = {
            (c.guidance, c.group, c.half, c.score, c.candidates, c.ranking): c for c in cells
        }
        self.shipped = shipped
        self.guidances = list(dict.fromkeys(cell.guidance for cell in cells))
        self.counts = sorted({cell.candidates for cell in cells})
        self.most = max(self.counts)
        self.groups = {cell.group for cell in cells}

    def text(
        self, guidance: float, group: str, half: str, score: str, count: int, ranking: str
    ) -> str:
        """The share with its interval, or a dash."""
        cell = self.cells.get((guidance, group, half, score, count, ranking))
        return share(cell.share, cell.bounds) if cell else "–"

    def value(self, guidance: float, group: str, half: str, ranking: str, count: int) -> float:
        """The share of all claims at once."""
        cell = self.cells.get((guidance, group, half, "all claims", count, ranking))
        return cell.share if cell else 0.0

    def best_guidance(self) -> float:
        """The scale with the highest mean over object counts and halves, as shipped."""
        return max(
            self.guidances,
            key=lambda guidance: sum(
                self.value(guidance, group, half, self.shipped, self.most)
                for group in SCENES
                for half in HALVES
            ),
        )


def suite_tables(scores: Scores) -> list[Table]:
    """Tables of every guidance scale, the comparison of scales first."""
    tables = [_over_guidance(scores)] if len(scores.guidances) > 1 else []
    for guidance in scores.guidances:
        tables += [
            scenes_table(scores, guidance),
            kinds_table(scores, guidance),
            _tasks(scores, guidance),
            _rankings(scores, guidance),
        ]
    return tables


def reconstruction_table(rows: Sequence[tuple[str, str, int, int]]) -> Table:
    """How well the judge reads reconstructions: half, score, successes and trials."""
    cells = [
        [half.replace("_", " "), score, share(right / max(n, 1), interval(right, n))]
        for half, score, right, n in rows
    ]
    title = "Reconstructions as the judge reads them"
    return Table(title, ["half", "what", "right"], cells, WILSON)


def suite_page(
    title: str, tables: Sequence[Table], outcomes: Sequence[Outcome], best: float
) -> str:
    """The page: tables, then failures at the best guidance scale."""
    return page(title, [table.to_html() for table in tables] + list(failures(outcomes, best)))


def failures(outcomes: Sequence[Outcome], guidance: float) -> Iterator[str]:
    """Chosen images that break a claim, in their groups."""
    yield heading(f"Failures at guidance {guidance:g}")
    yield note("The image that the run's ranking chose, what is wrong, and what the judge saw.")
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.guidance == guidance and outcome.failure is not None:
            key = (group_of(outcome.prompt), outcome.prompt.half)
            groups.setdefault(key, []).append(outcome)
    for (group, half), failed in groups.items():
        yield subheading(f"{group}, {half}: {len(failed)}")
        yield row(_tile(outcome) for outcome in failed[:SHOWN])


def _tile(outcome: Outcome) -> str:
    failure = outcome.failure
    assert failure is not None
    truth = outcome.truths[failure.seed - outcome.seed]
    wrong = ", ".join(kind for kind, held in truth.items() if not held)
    lines = [outcome.prompt.caption, f"wrong: {wrong}", f"seen: {_words(failure.seen)}"]
    return image_tile(failure.image, "\n".join([*lines, f"seed {failure.seed}"]), side=128)


def _words(scene: Scene) -> str:
    things = [f"{item.size} {item.color} {item.shape}" for item in scene.objects]
    return f"{', '.join(things) or 'nothing'} on {scene.background}"


def _rows(scores: Scores, groups: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Name, group and half of the rows of a table."""
    for group in groups:
        for half in HALVES:
            if group in scores.groups:
                yield f"{group}, {half.replace('_', ' ')}", group, half


def _over_guidance(scores: Scores) -> Table:
    most, shipped = scores.most, scores.shipped
    rows = [
        [
            name,
            *(scores.text(g, group, half, "all claims", most, shipped) for g in scores.guidances),
        ]
        for name, group, half in _rows(scores, [*SCENES, "all tasks"])
    ]
    columns = ["captions", *(f"guidance {g:g}" for g in scores.guidances)]
    return Table(
        f"All claims at once by guidance, best of {most} by {shipped}", columns, rows, WILSON
    )


def scenes_table(scores: Scores, guidance: float) -> Table:
    """All claims at once for captions of scenes: the first image, the best and the oracle's."""
    columns, rows = ["captions"], []
    for count in scores.counts:
        columns += ["first"] if count == 1 else [f"best of {count}", f"oracle of {count}"]
    for name, group, half in _rows(scores, SCENES):
        cells = [name]
        for count in scores.counts:
            for ranking in ("none",) if count == 1 else (scores.shipped, "oracle"):
                cells.append(scores.text(guidance, group, half, "all claims", count, ranking))
        rows.append(cells)
    title = f"Guidance {guidance:g}: all claims at once, ranked by {scores.shipped}"
    return Table(title, columns, rows, WILSON)


def kinds_table(scores: Scores, guidance: float) -> Table:
    """Each kind of claim by itself, for the image that the ranking chose."""
    rows = [
        [
            name,
            *(
                scores.text(guidance, group, half, k, scores.most, scores.shipped)
                for k in CLAIM_KINDS
            ),
        ]
        for name, group, half in _rows(scores, SCENES)
    ]
    title = f"Guidance {guidance:g}: each kind of claim, best of {scores.most} by {scores.shipped}"
    return Table(title, ["captions", *CLAIM_KINDS], rows, WILSON)


def _tasks(scores: Scores, guidance: float) -> Table:
    most, shipped = scores.most, scores.shipped
    columns = ["task"]
    for count in scores.counts:
        columns.append("first" if count == 1 else f"best of {count}")
    columns += [f"oracle of {most}", f"all claims, best of {most}"]
    rows = []
    for name, group, half in _rows(scores, [*TASKS, "all tasks"]):
        cells = [
            scores.text(guidance, group, half, "task", count, "none" if count == 1 else shipped)
            for count in scores.counts
        ]
        cells.append(scores.text(guidance, group, half, "task", most, "oracle"))
        cells.append(scores.text(guidance, group, half, "all claims", most, shipped))
        rows.append([name, *cells])
    explained = "A task scores its own kinds of claim; all claims adds size, count and the rest."
    return Table(f"Guidance {guidance:g}: tasks", columns, rows, f"{explained} {WILSON}")


def _rankings(scores: Scores, guidance: float) -> Table:
    most = scores.most
    rows = []
    for name, group, half in _rows(scores, [*SCENES, "all tasks"]):
        cells = [scores.text(guidance, group, half, "all claims", most, r) for r in RANKINGS]
        values: dict[str, float] = {
            r: scores.value(guidance, group, half, r, most) for r in RANKINGS
        }
        room = values["oracle"] - values["none"]
        closed = share((values[scores.shipped] - values["none"]) / room) if room > 0 else "–"
        rows.append([name, *cells, closed])
    title = f"Guidance {guidance:g}: all claims at once by ranking, best of {most}"
    columns = ["captions", *RANKINGS, f"closed by {scores.shipped}"]
    explained = "Closed: the share of the distance from none to oracle."
    return Table(title, columns, rows, f"{explained} {WILSON}")

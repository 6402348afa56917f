"""The tables of a prompt suite, built from its counts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dalle_mini_impl.evaluation.measures.intervals import wilson_interval
from dalle_mini_impl.evaluation.report.page import Table, share
from dalle_mini_impl.evaluation.suites.core import ALL_CLAIMS, SPLITS, STRICT, Split
from dalle_mini_impl.evaluation.suites.counting import CHOICES, Cell
from dalle_mini_impl.evaluation.suites.reconstructions import ReconstructionCount

WILSON = "Percent of prompts, with Wilson's 95 % interval in parentheses."
CHOSEN_ON: tuple[Split, ...] = ("seen",)
"""Prompts that the guidance scale is chosen by."""


@dataclass(frozen=True)
class Layout:
    """The rows of a suite's tables, and what they are called."""

    groups: Sequence[str]
    """Rows of the tables of all claims and of each kind."""
    compared: Sequence[str]
    """Rows of the tables that compare guidance scales and rankings."""
    kinds: Sequence[str]
    """Kinds of claim."""
    first: str
    """Heading of the column of groups."""
    what: str
    """The name of all claims in titles."""


class Scores:
    """The counts of a suite, looked up by what they are about.

    Lookups that name no score, number of candidates or ranking take all claims, the largest
    number and the run's own ranking.
    """

    def __init__(self, cells: Sequence[Cell], ranking: str) -> None:
        self.cells = {
            (c.guidance, c.group, c.split, c.score, c.candidates, c.ranking): c for c in cells
        }
        self.ranking = ranking
        self.guidances = list(dict.fromkeys(cell.guidance for cell in cells))
        self.counts = sorted({cell.candidates for cell in cells})
        self.most = max(self.counts)
        self.groups = {cell.group for cell in cells}

    def cell(
        self,
        guidance: float,
        row: tuple[str, Split],
        score: str = ALL_CLAIMS,
        count: int | None = None,
        ranking: str | None = None,
    ) -> Cell | None:
        """The count of a group and split, `row`; None where it was not taken."""
        by = ranking or self.ranking
        return self.cells.get((guidance, *row, score, count or self.most, by))

    def rows(
        self, groups: Sequence[str], splits: Sequence[Split] = SPLITS
    ) -> Iterator[tuple[str, tuple[str, Split]]]:
        """The name of each table row, and its group and split."""
        for group in groups:
            for split in splits:
                if group in self.groups:
                    yield f"{group}, {split.replace('_', ' ')}", (group, split)

    def best_guidance(self, groups: Sequence[str]) -> float:
        """The scale with the highest mean of all claims over these groups, seen prompts only.

        Held-out figures would be no measurement of what is new if the scale were chosen by them.
        """

        def total(guidance: float) -> float:
            cells = [self.cell(guidance, row) for _, row in self.rows(groups, CHOSEN_ON)]
            return sum(cell.share for cell in cells if cell)

        return max(self.guidances, key=total)


def shown(cell: Cell | None) -> str:
    """The share with its interval, or a dash."""
    return share(cell.share, cell.bounds) if cell else "–"


def suite_tables(
    scores: Scores, layout: Layout, *more: Callable[[Scores, float], Table]
) -> list[Table]:
    """The comparison of guidance scales, then the tables of each scale, `more` among them."""
    tables = guidance_tables(scores, layout)
    for guidance in scores.guidances:
        tables += [
            best_of_table(scores, guidance, layout),
            best_of_table(scores, guidance, layout, STRICT),
            kinds_of_claim_table(scores, guidance, layout),
            *(table(scores, guidance) for table in more),
            rankings_table(scores, guidance, layout),
        ]
    return tables


def guidance_tables(scores: Scores, layout: Layout) -> list[Table]:
    """All claims of seen prompts at each guidance scale; no table for a single scale."""
    if len(scores.guidances) == 1:
        return []
    rows = [
        [name, *(shown(scores.cell(guidance, row)) for guidance in scores.guidances)]
        for name, row in scores.rows(layout.compared, CHOSEN_ON)
    ]
    columns = [layout.first, *(f"guidance {guidance:g}" for guidance in scores.guidances)]
    title = f"{layout.what} by guidance, best of {scores.most} by {scores.ranking}"
    note = f"{WILSON} The scale is chosen by these seen prompts, never by held-out ones."
    return [Table(title[0].upper() + title[1:], columns, rows, note)]


def best_of_table(
    scores: Scores, guidance: float, layout: Layout, score: str = ALL_CLAIMS
) -> Table:
    """All claims for the first image, the best of each number, and the oracle's choice."""
    columns = [layout.first]
    for count in scores.counts:
        columns += ["first"] if count == 1 else [f"best of {count}", f"oracle of {count}"]
    rows = []
    for name, row in scores.rows(layout.groups):
        cells = [name]
        for count in scores.counts:
            for ranking in ("none",) if count == 1 else (scores.ranking, "oracle"):
                cells.append(shown(scores.cell(guidance, row, score, count, ranking)))
        rows.append(cells)
    what, note = layout.what, WILSON
    if score == STRICT:
        what, note = f"{what}, strictly", f"Shapes must be clean, without specks. {WILSON}"
    title = f"Guidance {guidance:g}: {what}, ranked by {scores.ranking}"
    return Table(title, columns, rows, note)


def kinds_of_claim_table(scores: Scores, guidance: float, layout: Layout) -> Table:
    """Each kind of claim by itself, for the image that the run's ranking chose."""
    rows = [
        [name, *(shown(scores.cell(guidance, row, kind)) for kind in layout.kinds)]
        for name, row in scores.rows(layout.groups)
    ]
    title = f"Guidance {guidance:g}: each kind of claim, best of {scores.most} by {scores.ranking}"
    return Table(title, [layout.first, *layout.kinds], rows, WILSON)


def rankings_table(scores: Scores, guidance: float, layout: Layout) -> Table:
    """All claims by each ranking, and how near the run's ranking comes to the oracle."""
    rows = []
    for name, row in scores.rows(layout.compared):
        cells = {ranking: scores.cell(guidance, row, ranking=ranking) for ranking in CHOICES}
        shares = {ranking: cell.share if cell else 0.0 for ranking, cell in cells.items()}
        texts = map(shown, cells.values())
        distance = shares["oracle"] - shares["none"]
        gain = shares[scores.ranking] - shares["none"]
        rows.append([name, *texts, share(gain / distance) if distance > 0 else "–"])
    title = f"Guidance {guidance:g}: {layout.what} by ranking, best of {scores.most}"
    columns = [layout.first, *CHOICES, f"closed by {scores.ranking}"]
    note = f"Closed: the share of the distance from none to oracle. {WILSON}"
    return Table(title, columns, rows, note)


def reconstruction_table(counts: Sequence[ReconstructionCount]) -> Table:
    """How well the detector reads reconstructions."""
    rows = [
        [
            count.split.replace("_", " "),
            count.score,
            share(count.successes / count.trials, wilson_interval(count.successes, count.trials)),
        ]
        for count in counts
    ]
    return Table(
        "Reconstructions as the detector reads them", ["split", "what", "right"], rows, WILSON
    )

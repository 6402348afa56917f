"""The page of a prompt suite: its tables, and failures to look at."""

from collections.abc import Iterator, Sequence

from PIL import Image

from dalle_mini_impl.evaluation.report.page import (
    Table,
    heading,
    image_tile,
    note,
    page,
    row,
    subheading,
)
from dalle_mini_impl.evaluation.suites.core import Outcome

SHOWN = 8
"""Failures shown of each group and split."""


def suite_page(
    title: str,
    tables: Sequence[Table],
    outcomes: Sequence[Outcome],
    guidance: float,
    failure_note: str,
) -> str:
    """The tables, then the failures at one guidance scale."""
    shown = failures(outcomes, guidance, failure_note)
    return page(title, [*(table.to_html() for table in tables), *shown])


def failures(outcomes: Sequence[Outcome], guidance: float, failure_note: str) -> Iterator[str]:
    """Chosen images that break a claim or are not clean, in their groups."""
    yield heading(f"Failures at guidance {guidance:g}")
    yield note(failure_note)
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.guidance == guidance and outcome.failure is not None:
            key = (outcome.prompt.groups[0], outcome.prompt.split)
            groups.setdefault(key, []).append(outcome)
    for (group, split), failed in groups.items():
        yield subheading(f"{group}, {split.replace('_', ' ')}: {len(failed)}")
        yield row(_tile(outcome) for outcome in failed[:SHOWN])


def _tile(outcome: Outcome) -> str:
    failure = outcome.failure
    assert failure is not None
    wrong = [kind for kind, held in outcome.correct[failure.candidate].items() if not held]
    if not outcome.clean[failure.candidate]:
        wrong.append("not clean")
    lines = [
        outcome.prompt.caption,
        f"wrong: {', '.join(wrong)}",
        f"seen: {failure.seen}",
        f"seed {outcome.seed + failure.candidate}",
    ]
    return image_tile(Image.fromarray(failure.image), "\n".join(lines), side=128)

"""How many prompts of a suite pass, by group, split, score, number of candidates and ranking."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from dalle_mini_impl.evaluation.measures.intervals import wilson_interval
from dalle_mini_impl.evaluation.suites.core import Outcome, Split
from dalle_mini_impl.sampling.ranking import RANKINGS

CHOICES: tuple[str, ...] = (*RANKINGS, "oracle")
"""Ways to choose among N candidates; none takes the first, oracle any that passes."""


@dataclass(frozen=True)
class Cell:
    """How many prompts of a group pass a score."""

    guidance: float
    group: str
    split: Split
    score: str
    """ALL_CLAIMS, STRICT, a kind of claim, or another of the prompts (see SuitePrompt.scores)."""
    candidates: int
    ranking: str
    """One of CHOICES."""
    successes: int
    trials: int

    @property
    def share(self) -> float:
        return self.successes / max(self.trials, 1)

    @property
    def bounds(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share."""
        return wilson_interval(self.successes, self.trials)

    def to_dict(self) -> dict[str, str | float | int]:
        low, high = self.bounds
        return {**asdict(self), "share": self.share, "low": low, "high": high}


def count_cells(outcomes: Iterable[Outcome], candidates: Sequence[int]) -> list[Cell]:
    """Every share that the outcomes hold."""
    groups: dict[tuple[float, str, Split], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        for group in outcome.prompt.groups:
            groups[outcome.guidance, group, outcome.prompt.split].append(outcome)
    return [
        Cell(*key, score, count, choice, sum(passes), len(passes))
        for key, members in groups.items()
        for score, count, choice, passes in _passes(members, candidates)
    ]


def _passes(
    outcomes: Sequence[Outcome], candidates: Sequence[int]
) -> Iterator[tuple[str, int, str, list[bool]]]:
    """Score, number of candidates, choice, and which prompts that have the score pass it."""
    scored = [
        [outcome.prompt.scores(*own) for own in zip(outcome.correct, outcome.clean, strict=True)]
        for outcome in outcomes
    ]
    for score in dict.fromkeys(name for own in scored for name in own[0]):
        members = [
            (outcome, [passed[score] for passed in own])
            for outcome, own in zip(outcomes, scored, strict=True)
            if score in own[0]
        ]
        for count in candidates:
            for ranking in RANKINGS:
                passes = [own[outcome.chosen[count, ranking]] for outcome, own in members]
                yield score, count, ranking, passes
            yield score, count, "oracle", [any(own[:count]) for _, own in members]

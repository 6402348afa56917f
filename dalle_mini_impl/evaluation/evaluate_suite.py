"""A run judged on a prompt suite: sample, judge, count, and show the counts."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch

from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.evaluation.report.page import Table
from dalle_mini_impl.evaluation.report.panels_tables import panels_tables
from dalle_mini_impl.evaluation.report.shapes_tables import shapes_tables
from dalle_mini_impl.evaluation.report.suite_page import suite_page
from dalle_mini_impl.evaluation.report.suite_tables import Scores, reconstruction_table
from dalle_mini_impl.evaluation.suites.core import (
    SuitePrompt,
    SuiteSettings,
    run_ranking,
    run_suite,
)
from dalle_mini_impl.evaluation.suites.counting import count_cells
from dalle_mini_impl.evaluation.suites.panels import ALL_CHANGES, panels_originals, panels_prompts
from dalle_mini_impl.evaluation.suites.reconstructions import Original, judge_reconstructions
from dalle_mini_impl.evaluation.suites.shapes import SCENES, shapes_originals, shapes_prompts
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.runs.folder import RunFolder


class Suite(ABC):
    """What differs between suites: prompts, originals, tables and names."""

    deciding_groups: ClassVar[Sequence[str]]
    """The groups whose scores decide the best guidance scale."""
    failure_note: ClassVar[str]

    def __init__(self, data: DataConfig, settings: SuiteSettings) -> None:
        self.data = data
        self.settings = settings

    @abstractmethod
    def prompts(self) -> Sequence[SuitePrompt]: ...

    @abstractmethod
    def originals(self, image_size: int) -> Iterator[Original]:
        """Images to be reconstructed by the image tokenizer."""

    @abstractmethod
    def tables(self, scores: Scores) -> list[Table]: ...


class ShapesSuite(Suite):
    """Tasks after GenEval, and captions of whole scenes."""

    deciding_groups = SCENES
    failure_note = "The image that the run's ranking chose, what is wrong, and what the judge saw."

    def prompts(self) -> Sequence[SuitePrompt]:
        return shapes_prompts(self.data.shapes, self.settings.per_task, self.settings.seed)

    def originals(self, image_size: int) -> Iterator[Original]:
        return shapes_originals(self.data.shapes, self.settings.per_task, image_size)

    def tables(self, scores: Scores) -> list[Table]:
        return shapes_tables(scores)


class PanelsSuite(Suite):
    """Lower halves that repeat a given upper half with a change."""

    deciding_groups = (ALL_CHANGES,)
    failure_note = (
        "The image that the run's ranking chose (the upper half is given, the lower half sampled), "
        "what is wrong with the lower half, and what the judge saw in it."
    )

    def prompts(self) -> Sequence[SuitePrompt]:
        return panels_prompts(self.data.panels, self.settings.per_task, self.settings.seed)

    def originals(self, image_size: int) -> Iterator[Original]:
        prompts = panels_prompts(self.data.panels, self.settings.per_task, self.settings.seed)
        return panels_originals(prompts, image_size)

    def tables(self, scores: Scores) -> list[Table]:
        return panels_tables(scores)


SUITES: dict[str, type[Suite]] = {"shapes": ShapesSuite, "panels": PanelsSuite}


@dataclass(frozen=True)
class SuiteResult:
    """What a run achieves on a suite."""

    values: dict[str, Any]
    """JSON values, down to each candidate of each prompt."""
    tables: list[Table]
    page: str
    """HTML."""


def evaluate_suite(
    run: RunFolder,
    name: Literal["shapes", "panels"],
    settings: SuiteSettings,
    device: str | torch.device | None = None,
    report: Callable[[str], None] = print,
) -> SuiteResult:
    """Sample and judge the suite; judge reconstructions of its images beside it."""
    suite = SUITES[name](run.experiment.data, settings)
    model = TextToImage.from_pretrained(run, device)
    tokenizer = model.image_tokenizer
    outcomes = run_suite(model, suite.prompts(), settings, report)
    reconstructions = judge_reconstructions(
        suite.originals(tokenizer.image_size),
        lambda pixels: tokenizer.decode(tokenizer.encode(pixels.to(model.device))),
    )
    cells = count_cells(outcomes, settings.candidates)
    scores = Scores(cells, run_ranking(model))
    best_guidance = scores.best_guidance(suite.deciding_groups)
    tables = [*suite.tables(scores), reconstruction_table(reconstructions)]
    values = {
        "run": str(run.path),
        "ranking": scores.ranking,
        "best_guidance": best_guidance,
        "settings": asdict(settings),
        "scores": [cell.to_dict() for cell in cells],
        "prompts": [outcome.to_dict() for outcome in outcomes],
        "reconstructions": [asdict(count) for count in reconstructions],
    }
    title = f"{name.capitalize()} suite: {run.path.name}"
    page = suite_page(title, tables, outcomes, best_guidance, suite.failure_note)
    return SuiteResult(values, tables, page)

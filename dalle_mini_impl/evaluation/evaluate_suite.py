"""A run judged on a prompt suite: sample, judge, count, and show the counts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

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


@dataclass(frozen=True)
class Suite:
    """What differs between suites."""

    prompts: Callable[[DataConfig, SuiteSettings], Sequence[SuitePrompt]]
    originals: Callable[[DataConfig, SuiteSettings, int], Iterator[Original]]
    """Images of the given size, to be reconstructed by the image tokenizer."""
    tables: Callable[[Scores], list[Table]]
    deciding_groups: Sequence[str]
    """The groups whose scores decide the best guidance scale."""
    failure_note: str


SUITES = {
    "shapes": Suite(
        lambda data, settings: shapes_prompts(data.shapes, settings.per_task, settings.seed),
        lambda data, settings, size: shapes_originals(data.shapes, settings.per_task, size),
        shapes_tables,
        SCENES,
        "The image that the run's ranking chose, what is wrong, and what the detector saw.",
    ),
    "panels": Suite(
        lambda data, settings: panels_prompts(data.panels, settings.per_task, settings.seed),
        lambda data, settings, size: panels_originals(
            panels_prompts(data.panels, settings.per_task, settings.seed), size
        ),
        panels_tables,
        (ALL_CHANGES,),
        "The image that the run's ranking chose (the upper half is given, the lower half sampled), "
        "what is wrong with the lower half, and what the detector saw in it.",
    ),
}


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
    suite, data = SUITES[name], run.experiment.data
    model = TextToImage.from_pretrained(run, device)
    tokenizer = model.image_tokenizer
    outcomes = run_suite(model, suite.prompts(data, settings), settings, report)
    reconstructions = judge_reconstructions(
        suite.originals(data, settings, tokenizer.image_size),
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

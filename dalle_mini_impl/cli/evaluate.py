"""`dalle evaluate`: a run measured on held-out data, or judged by rule on the shapes suite."""

import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from dalle_mini_impl.cli.sample import check_device
from dalle_mini_impl.config import ConfigError

if TYPE_CHECKING:
    from dalle_mini_impl.evaluation.suites.shapes import SuiteSettings
    from dalle_mini_impl.pipeline import TextToImage
    from dalle_mini_impl.runs.folder import RunFolder


@dataclass(frozen=True)
class EvaluateArguments:
    """Measure a run; prints tables and writes JSON and a page."""

    run: Path | None = None
    """Run folder; the newest run with an image tokenizer under runs/ if not given."""
    suite: Literal["shapes", "panels"] | None = None
    """Judge images of a prompt suite by rule (for runs of that name); else held-out data."""
    guidance: tuple[float, ...] = ()
    """Guidance scales; the run's own if not given. Held-out data is measured at the first."""
    candidates: tuple[int, ...] = (1, 4, 16)
    """Best of how many; the largest number is painted for each caption."""
    per_task: int = 100
    """With --suite: prompts for each task or change and half."""
    split: Literal["validation", "held_out"] = "validation"
    """Without --suite: unseen images, or those that data.held_out_captions keeps aside."""
    max_examples: int = 512
    """Without --suite: held-out images at most."""
    features: str | None = None
    """Without --suite: MODULE:FUNCTION that compares images in place of the run's CLIP."""
    batch_size: int = 128
    """Images painted at a time, to bound memory."""
    seed: int = 0
    """Seed of prompts, choices and noise."""
    out: Path | None = None
    """Folder for the JSON and the page; RUN/evaluation if not given."""
    device: str | None = None
    """cpu or cuda; the GPU if there is one."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse `argv` and evaluate."""
    arguments = tyro.cli(EvaluateArguments, args=argv, prog="dalle evaluate")
    check(arguments)
    check_device(arguments.device)
    from dalle_mini_impl.runs.folder import RunFolder
    from dalle_mini_impl.runs.newest import newest

    run = RunFolder.open(arguments.run) if arguments.run else newest(weights="image_tokenizer")
    if arguments.suite is not None and run.experiment.data.path != arguments.suite:
        raise ConfigError(
            f"--suite {arguments.suite}: {run.path} was trained on {run.experiment.data.path}, "
            f"not on {arguments.suite}; leave --suite out to measure it on its own held-out data"
        )
    out = arguments.out or run.path / "evaluation"
    out.mkdir(parents=True, exist_ok=True)
    measures = {None: measure_collection, "shapes": judge_suite, "panels": judge_panels}
    measures[arguments.suite](run, arguments, out, say)


def check(arguments: EvaluateArguments) -> None:
    """Refuse impossible values before anything is loaded."""
    for option in ("per_task", "max_examples", "batch_size"):
        value = getattr(arguments, option)
        if value < 1:
            raise ConfigError(f"--{option.replace('_', '-')} {value}: give a positive number")
    if not arguments.candidates or min(arguments.candidates) < 1:
        raise ConfigError(f"--candidates {arguments.candidates}: give positive numbers")
    if any(scale < 0 for scale in arguments.guidance):
        raise ConfigError(f"--guidance {arguments.guidance}: a scale is 0 at least, 1 is plain")
    missing = [n for n in ("scipy", "torchmetrics") if importlib.util.find_spec(n) is None]
    if missing:
        raise ConfigError(
            f"dalle evaluate needs {' and '.join(missing)}: `pip install -e '.[evaluation]'`"
        )


def say(message: str) -> None:
    """A line at once, also into a file or pipe."""
    print(message, flush=True)


def suite_settings(model: "TextToImage", arguments: EvaluateArguments) -> "SuiteSettings":
    """What a suite is asked, the run's own guidance where none is given."""
    from dalle_mini_impl.evaluation.suites.shapes import SuiteSettings

    return SuiteSettings(
        arguments.guidance or (model.sampling.guidance,),
        tuple(sorted(set(arguments.candidates))),
        arguments.per_task,
        arguments.seed,
        arguments.batch_size,
    )


def judge_suite(
    run: "RunFolder", arguments: EvaluateArguments, out: Path, report: Callable[[str], None]
) -> None:
    """Paint the suite, judge it, print the tables, write suite.json and suite.html."""
    from dalle_mini_impl.evaluation.measures.judged_reconstructions import judge_reconstructions
    from dalle_mini_impl.evaluation.report.shapes_page import (
        Scores,
        reconstruction_table,
        suite_page,
        suite_tables,
    )
    from dalle_mini_impl.evaluation.suites.shapes import (
        count_cells,
        figures,
        run_suite,
        shipped_ranking,
    )
    from dalle_mini_impl.pipeline import TextToImage

    model = TextToImage.from_pretrained(run, arguments.device)
    settings = suite_settings(model, arguments)
    shapes = run.experiment.data.shapes
    outcomes = run_suite(model, shapes, settings, report)
    cells = count_cells(outcomes, settings.candidates)
    shipped = shipped_ranking(model)
    scores = Scores(cells, shipped)
    reconstructions = judge_reconstructions(model, shapes, arguments.per_task)
    tables = [*suite_tables(scores), reconstruction_table(reconstructions)]
    names = ("half", "score", "successes", "trials")
    values = {
        "run": str(run.path),
        "ranking": shipped,
        "best_guidance": scores.best_guidance(),
        **figures(outcomes, cells, settings),
        "reconstructions": [dict(zip(names, row, strict=True)) for row in reconstructions],
    }
    page = suite_page(f"Shapes suite: {run.path.name}", tables, outcomes, scores.best_guidance())
    for table in tables:
        report(f"\n{table}")
    write(out / "suite.json", json.dumps(values, ensure_ascii=False) + "\n")
    write(out / "suite.html", page)
    report(f"\n{out / 'suite.json'}\n{out / 'suite.html'}")


def judge_panels(
    run: "RunFolder", arguments: EvaluateArguments, out: Path, report: Callable[[str], None]
) -> None:
    """Give upper halves, paint and judge the lower ones, write panels.json and panels.html."""
    from dalle_mini_impl.evaluation.report.panels_page import (
        best_panel_guidance,
        panel_page,
        panel_tables,
    )
    from dalle_mini_impl.evaluation.report.shapes_page import Scores, reconstruction_table
    from dalle_mini_impl.evaluation.suites.panels import (
        count_panel_cells,
        judge_panel_reconstructions,
        panel_figures,
        panel_prompts,
        run_panel_suite,
    )
    from dalle_mini_impl.evaluation.suites.shapes import shipped_ranking
    from dalle_mini_impl.pipeline import TextToImage

    model = TextToImage.from_pretrained(run, arguments.device)
    settings = suite_settings(model, arguments)
    panels = run.experiment.data.panels
    outcomes = run_panel_suite(model, panels, settings, report)
    cells = count_panel_cells(outcomes, settings.candidates)
    scores = Scores(cells, shipped_ranking(model))
    best = best_panel_guidance(scores)
    prompts = panel_prompts(panels, settings.per_task, settings.seed)
    reconstructions = judge_panel_reconstructions(model, prompts)
    tables = [*panel_tables(scores), reconstruction_table(reconstructions)]
    names = ("half", "score", "successes", "trials")
    values = {
        "run": str(run.path),
        "ranking": scores.shipped,
        "best_guidance": best,
        **panel_figures(outcomes, cells, settings),
        "reconstructions": [dict(zip(names, row, strict=True)) for row in reconstructions],
    }
    for table in tables:
        report(f"\n{table}")
    page = panel_page(f"Panels suite: {run.path.name}", tables, outcomes, best)
    write(out / "panels.json", json.dumps(values, ensure_ascii=False) + "\n")
    write(out / "panels.html", page)
    report(f"\n{out / 'panels.json'}\n{out / 'panels.html'}")


def measure_collection(
    run: "RunFolder", arguments: EvaluateArguments, out: Path, report: Callable[[str], None]
) -> None:
    """Measure every model of the run, print the tables, write evaluation.json and .html."""
    import torch

    from dalle_mini_impl.evaluation.measures.collection import (
        CollectionSettings,
        evaluate_collection,
    )
    from dalle_mini_impl.evaluation.measures.features import local_features
    from dalle_mini_impl.evaluation.report.page import note, page
    from dalle_mini_impl.precision import best_device

    settings = CollectionSettings(
        arguments.split,
        (arguments.guidance or (run.experiment.sampling.guidance,))[0],
        tuple(sorted(set(arguments.candidates))),
        arguments.max_examples,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
    )
    if arguments.features and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # Where a module of the user's own lies.
    features = local_features(arguments.features) if arguments.features else None
    device = torch.device(arguments.device or best_device())
    parts = evaluate_collection(run, settings, device, features, report)
    for part in parts:
        report(f"\n{part.name}")
        for table in part.tables:
            report(str(table))
    values = {
        "run": str(run.path),
        "settings": asdict(settings),
        "parts": {part.name: part.figures for part in parts},
    }
    drawn = f"{settings.split} images, guidance {settings.guidance:g}, seed {settings.seed}"
    text = page(f"Evaluation: {run.path.name}", [note(drawn), *(p.to_html() for p in parts)])
    write(out / "evaluation.json", json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    write(out / "evaluation.html", text)
    report(f"\n{out / 'evaluation.json'}\n{out / 'evaluation.html'}")


def write(path: Path, text: str) -> None:
    """Write under a temporary name and rename."""
    from dalle_mini_impl.files import atomic_write

    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

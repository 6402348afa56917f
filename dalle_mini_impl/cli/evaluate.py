"""`dalle evaluate`: a run measured on held-out data, or judged by rule on a prompt suite."""

import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from dalle_mini_impl.cli.output import OutputOptions, Result, output
from dalle_mini_impl.cli.output_folder import check_folder
from dalle_mini_impl.cli.parsing import parse_arguments
from dalle_mini_impl.cli.run_options import (
    Device,
    check_device,
    open_run,
    optional,
    refuse_read_only,
)
from dalle_mini_impl.config import ConfigError, Seed
from dalle_mini_impl.data.messages import import_problem
from dalle_mini_impl.files import write_text

if TYPE_CHECKING:
    from dalle_mini_impl.runs.folder import RunFolder


Count = Annotated[int, Field(ge=1, le=2**16)]


@dataclass(frozen=True)
class EvaluateArguments(OutputOptions):
    """Measure a run; prints tables and writes JSON and a page."""

    run: Annotated[
        Path | None, optional("the newest run with an image tokenizer under runs/", "DIR")
    ] = None
    """Run folder."""
    suite: Annotated[
        Literal["shapes", "panels"] | None, optional("held-out data", "{shapes,panels}")
    ] = None
    """Judge images of a prompt suite by rule (for runs on data of that name)."""
    guidance: Annotated[
        tuple[Annotated[float, Field(ge=0, le=1000)], ...],
        optional("the run's sampling.guidance"),
    ] = ()
    """Guidance scales. Held-out data is measured at the first."""
    candidates: tuple[Count, ...] = (1, 4, 16)
    """Best of how many; the largest number is sampled for each caption."""
    per_task: Count = 100
    """With --suite: prompts for each task or change and split."""
    split: Literal["validation", "held_out"] = "validation"
    """Without --suite: unseen images, or those that data.held_out_captions keeps aside."""
    max_examples: Annotated[int, Field(ge=1, le=10**9)] = 512
    """Without --suite: held-out images at most."""
    features: Annotated[str | None, optional("the run's CLIP", "MODULE:FUNCTION")] = None
    """Without --suite: features that images are compared by."""
    batch_size: Count = 128
    """Images sampled at a time, to bound memory."""
    seed: Seed = 0
    """Seed of prompts, choices and noise."""
    out: Annotated[Path | None, optional("RUN/evaluation", "DIR")] = None
    """Folder for the JSON and the page."""
    device: Device = None


def main(argv: Sequence[str] | None = None) -> None:
    """Parse `argv` and evaluate."""
    arguments = parse_arguments(EvaluateArguments, argv, "dalle evaluate")
    check(arguments)
    check_device(arguments.device)

    run = open_run(arguments.run, weights="image_tokenizer")
    refuse_read_only(run, "an evaluation")
    trained_on = run.experiment.data.path
    if arguments.suite is not None and trained_on != arguments.suite:
        raise ConfigError(
            f"--suite {arguments.suite}: {run.path} was trained on {trained_on}, not on "
            f"{arguments.suite}; leave --suite out to measure it on its own held-out data"
        )
    out = arguments.out or run.path / "evaluation"
    check_folder("--out", out)
    out.mkdir(parents=True, exist_ok=True)
    with output(arguments) as result:
        if arguments.suite is None:
            evaluate_held_out(run, arguments, out / "evaluation", result)
        else:
            evaluate_on_suite(run, arguments, arguments.suite, out / arguments.suite, result)


def check(arguments: EvaluateArguments) -> None:
    """Refuse impossible values before anything is loaded."""
    if not arguments.candidates:
        raise ConfigError("--candidates: give at least one number")
    for library in ("scipy", "torchmetrics"):
        try:
            importlib.import_module(library)
        except (ImportError, RuntimeError, OSError) as error:
            raise ConfigError(
                f"dalle evaluate needs {library}: {import_problem(library, error)}; "
                "`pip install scipy torchmetrics`"
            ) from error


def say(message: str) -> None:
    """Print a line immediately, also to a file or pipe."""
    print(message, flush=True)


def evaluate_on_suite(
    run: "RunFolder",
    arguments: EvaluateArguments,
    suite: Literal["shapes", "panels"],
    out: Path,
    result: Result,
) -> None:
    """Judge images of a prompt suite by rule."""
    from dalle_mini_impl.evaluation.evaluate_suite import evaluate_suite
    from dalle_mini_impl.evaluation.suites.core import SuiteSettings

    settings = SuiteSettings(
        arguments.guidance or (run.experiment.sampling.guidance,),
        tuple(sorted(set(arguments.candidates))),
        arguments.per_task,
        arguments.seed,
        arguments.batch_size,
    )
    judged = evaluate_suite(run, suite, settings, arguments.device, say)
    files = save(out, json.dumps(judged.values, ensure_ascii=False), judged.page)
    text = [*(f"\n{table}" for table in judged.tables), "", *files]
    result(judged.values, lambda: say("\n".join(text)))


def evaluate_held_out(
    run: "RunFolder", arguments: EvaluateArguments, out: Path, result: Result
) -> None:
    """Measure every model of the run on held-out data."""
    import torch

    from dalle_mini_impl.evaluation.evaluate_collection import evaluate_collection
    from dalle_mini_impl.evaluation.held_out import CollectionSettings
    from dalle_mini_impl.evaluation.measures.features import local_features
    from dalle_mini_impl.evaluation.report.curves import by_stage, training_curves
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
        sys.path.append(str(Path.cwd()))  # The user's module may be there.
    features = local_features(arguments.features) if arguments.features else None
    device = torch.device(arguments.device) if arguments.device else best_device()
    parts = evaluate_collection(run, settings, device, features, say)
    values = {
        "run": str(run.path),
        "settings": asdict(settings),
        "parts": {part.name: part.figures for part in parts},
    }
    origin = f"{settings.split} images, guidance {settings.guidance:g}, seed {settings.seed}"
    curves = training_curves(by_stage(run.metrics()))
    body = [note(origin), *(part.to_html() for part in parts), *curves]
    html = page(f"Evaluation: {run.path.name}", body)
    files = save(out, json.dumps(values, indent=1, ensure_ascii=False), html)
    result(values, lambda: say("\n".join([*(f"\n{part}" for part in parts), "", *files])))


def save(out: Path, values: str, page: str) -> list[str]:
    """Write OUT.json and OUT.html; returns their names."""
    files = {out.with_suffix(".json"): values + "\n", out.with_suffix(".html"): page}
    for path, text in files.items():
        write_text(path, text)
    return list(map(str, files))

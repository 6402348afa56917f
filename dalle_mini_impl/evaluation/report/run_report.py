"""report.html: samples, figures, curves and configuration of a run in a page that opens offline."""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open

from dalle_mini_impl.evaluation.report.codebook import codebook_section
from dalle_mini_impl.evaluation.report.curves import (
    HELD_OUT,
    RATES,
    Record,
    by_stage,
    is_number,
    training_curves,
)
from dalle_mini_impl.evaluation.report.gallery import read_gallery
from dalle_mini_impl.evaluation.report.nearest import NOTE, NearestImages
from dalle_mini_impl.evaluation.report.page import (
    Table,
    folded,
    heading,
    image_tile,
    note,
    number,
    page,
    preformatted,
    row,
    share,
    sheet,
    subheading,
)
from dalle_mini_impl.evaluation.report.samples import SCORES, samples_section
from dalle_mini_impl.files import write_text
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.stages import STAGES

PREVIEW_TITLES = {
    "image_tokenizer": "image_tokenizer: originals beside reconstructions",
    "transformer": "transformer: samples for fixed captions",
}

SHARES = ("code_usage", "accuracy", "hard")

TRUE, ANOTHER, NONE = (f"{HELD_OUT}{name}" for name in ("image", "another_caption", "no_caption"))
"""Losses that the transformer logs."""


def write_report(run: RunFolder) -> Path:
    """Write the run's report.html; what the run does not have yet is left out."""
    stages = by_stage(run.metrics())
    training = NearestImages(run)
    body = [note(_origin(run)), *samples_section(run, training), *_galleries(run, training)]
    body += [
        *_previews(run),
        *codebook_section(run),
        *_figures(run),
        *training_curves(stages),
        heading("Configuration"),
    ]
    body.append(folded("config.yaml", preformatted(run.experiment.to_yaml())))
    target = run.path / "report.html"
    write_text(target, page(f"Run {run.path.resolve().name}", body))
    return target


def parameters(run: RunFolder, weights: str) -> int | None:
    """Number of parameters in a weights file, read from its header; None without a file."""
    if not run.has_weights(weights):
        return None
    try:
        with safe_open(run.weights_path(weights), framework="pt") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (OSError, SafetensorError):
        return None


def minutes(records: Sequence[Record], batch_size: int) -> float | None:
    """Training time: the sum of steps over their logged rates."""
    seconds, last = 0.0, 0
    for record in records:
        if record.get("examples_per_second"):
            seconds += (record["step"] - last) * batch_size / record["examples_per_second"]
            last = record["step"]
    return seconds / 60 if seconds else None


def final(records: Sequence[Record]) -> dict[str, float]:
    """The last value of every logged number."""
    values: dict[str, float] = {}
    for record in records:
        values |= {name: float(value) for name, value in record.items() if is_number(value)}
    for name in ("step", "progress"):
        values.pop(name, None)
    return values


def _origin(run: RunFolder) -> str:
    data = run.experiment.data
    parts = [f"data: {data.path}", f"{data.image_size} × {data.image_size} pixels"]
    if run.fingerprint:
        parts.append(f"data fingerprint {run.fingerprint}")
    return " · ".join(parts)


def figures(run: RunFolder) -> Table:
    """Each stage's size, steps, minutes and last values."""
    records = run.metrics()
    rows = []
    for stage in STAGES:
        weights = STAGES[stage].weights
        own = [record for record in records if record["stage"] == stage]
        count = parameters(run, weights) if weights else None
        if not own and count is None:
            continue
        steps = spent = None
        if own and weights:
            steps = own[-1]["step"]
            spent = minutes(own, getattr(run.experiment, stage).training.batch_size)
        results = "  ".join(
            f"{name} {_value(name, value)}"
            for name, value in final(own).items()
            if name not in RATES
        )
        time = "–" if spent is None else f"{spent:.1f}"
        rows.append([stage, number(count), number(steps), time, results])
    return Table("", ["stage", "parameters", "steps", "minutes", "last values"], rows)


def _figures(run: RunFolder) -> Iterator[str]:
    table = figures(run)
    if table.rows:
        yield heading("Figures")
        yield table.to_html()
    captions = caption_losses(run.metrics())
    if captions.rows:
        yield captions.to_html()


def caption_losses(records: Sequence[Record]) -> Table:
    """The transformer's held-out losses with the true caption, another's and none, at its best."""
    measured = [r for r in records if r["stage"] == "transformer" and is_number(r.get(TRUE))]
    if not measured:
        return Table("", [], [])
    best = min(measured, key=lambda record: record[TRUE])
    names = {TRUE: "the true caption", ANOTHER: "another image's", NONE: "none"}
    rows = [
        [label, f"{best[name]:.3f}", f"{best[name] / math.log(2):.3f}"]
        for name, label in names.items()
        if is_number(best.get(name))
    ]
    note = f"At step {best['step']:,}, where the loss with the true caption was lowest."
    title = "Transformer on held-out images"
    return Table(title, ["caption", "nats per code", "bits per code"], rows, note)


def _previews(run: RunFolder) -> Iterator[str]:
    """Each series of preview PNGs (named SERIES-STEP.png): the last one shown, others folded."""
    series: dict[str, list[Path]] = {}
    for file in sorted((run.path / "previews").glob("*.png"), key=_by_number):
        series.setdefault(re.sub(r"[-_.]*\d+$", "", file.stem) or file.stem, []).append(file)
    order = [*STAGES, *sorted(series)]
    if series:
        yield heading("Reconstructions and samples")
    for name in sorted(series, key=lambda n: next(i for i, s in enumerate(order) if s in n)):
        *earlier, last = series[name]
        yield subheading(PREVIEW_TITLES.get(name, name)) + sheet(last.read_bytes(), last.stem)
        if earlier:
            shown = "".join(sheet(file.read_bytes(), file.stem) for file in earlier)
            yield folded(f"{len(earlier)} earlier", shown)


def _galleries(run: RunFolder, training: NearestImages) -> Iterator[str]:
    galleries = read_gallery(run)
    if galleries:
        yield heading("Ranked galleries")
        yield note(f"Best first. {SCORES}")
        if any(image.nearest for ranked in galleries for image in ranked.images):
            yield note(NOTE)
    for ranked in galleries:
        tiles = []
        for image in ranked.images:
            scores = [] if image.clip_score is None else [f"clip {image.clip_score:.3f}"]
            scores += [f"llr {image.log_likelihood_ratio:.1f}", f"seed {image.seed}"]
            below, text = training.beside(image.nearest), "\n".join(scores)
            tiles.append(image_tile(image.file.read_bytes(), text, 112, below))
        yield subheading(f"{ranked.caption} (best of {ranked.candidates})") + row(tiles)


def _by_number(file: Path) -> tuple[str, int]:
    digits = re.search(r"(\d+)$", file.stem)
    return re.sub(r"\d+$", "", file.stem), int(digits[1]) if digits else -1


def _value(name: str, value: float) -> str:
    if name.removeprefix(HELD_OUT).removeprefix("hard_") in SHARES and 0 <= value <= 1:
        return share(value)
    return f"{value:.2f} dB" if name.endswith("psnr") else number(value)

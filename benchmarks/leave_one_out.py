"""What each technique brings to a transformer's time to quality: train without it, equally long.

    python -m benchmarks.leave_one_out RUN [--seconds 240] [--seeds 0 1] [--out result.json]

RUN holds an image tokenizer, its codes and a vocabulary. Every variant trains the run's transformer
for the same wall time on the same batches; its image loss on held-out pictures is taken along the
way, off the clock. The yardstick is what the plain variant (AdamW, no compile) ends at.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import tyro
from accelerate import Accelerator

from dalle_mini_impl.captions import CaptionTokenizer
from dalle_mini_impl.data.batches import CodeBatch, CodeBatches, pictures, prefetch
from dalle_mini_impl.models.dalle import Dalle, TransformerConfig
from dalle_mini_impl.models.image_tokenizer import ImageTokenizer
from dalle_mini_impl.pipeline import load_image_tokenizer
from dalle_mini_impl.run import RunFolder
from dalle_mini_impl.training.compilation import compile_if_it_pays
from dalle_mini_impl.training.cross_entropy import mean_cross_entropy
from dalle_mini_impl.training.dalle import DalleObjective
from dalle_mini_impl.training.learner import Learner
from dalle_mini_impl.training.objective import to_device
from dalle_mini_impl.training.stages import codes_of
from dalle_mini_impl.training.workshop import Workshop

PLAIN = "plain: AdamW, eager"
FULL = "full"


@dataclass(frozen=True)
class Variant:
    """What differs from the run's own configuration."""

    training: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)


VARIANTS = {
    FULL: Variant(),
    PLAIN: Variant({"optimizer": "adamw", "compile": "off"}),
    "AdamW instead of Muon": Variant({"optimizer": "adamw"}),
    "no compile": Variant({"compile": "off"}),
    "fp32": Variant({"precision": "fp32"}),
    "no EMA": Variant({"ema": 0.0}),
    "the paper's block": Variant(model={"block": "dalle"}),
    "no upper neighbour": Variant(model={"upper_neighbour": False}),
}


@dataclass(frozen=True)
class Point:
    """Held-out image loss, in nats per code, after some wall seconds and steps."""

    seconds: float
    step: int
    loss: float


@dataclass(frozen=True)
class Lesson:
    """What all variants share: batches by step and seed, and pictures none of them sees."""

    batches: CodeBatches
    vocabulary: CaptionTokenizer
    tokenizer: ImageTokenizer
    held_out: CodeBatch


def prepare(run: RunFolder, held_out: int) -> Lesson:
    """The run's batches and the codes of its first `held_out` validation pictures."""
    shop = Workshop(run)
    tokenizer = load_image_tokenizer(run).eval().requires_grad_(False)
    training = shop.experiment.transformer.training
    batches = CodeBatches(codes_of(shop, tokenizer), shop.table(False), training.batch_size)
    shown = shop.split("validation")
    rows = torch.arange(min(held_out, len(shown))).numpy()
    with torch.no_grad():
        codes = tokenizer.encode(pictures(shown, rows, shop.experiment.data, None))
    texts = [shown.captions[row][0] for row in rows]
    captions = torch.from_numpy(shop.vocabulary.encode(texts))
    return Lesson(batches, shop.vocabulary, tokenizer, CodeBatch(codes, captions))


@torch.no_grad()
def held_out_loss(model: Dalle, batch: CodeBatch, rows: int = 128) -> float:
    """Mean image loss in fp32, over parts of the batch that fit in memory."""
    total = 0.0
    for start in range(0, len(batch.codes), rows):
        part = slice(start, start + rows)
        codes = batch.codes[part]
        hidden = model.hidden(batch.captions[part], codes)
        loss = mean_cross_entropy(hidden.image, model.image_head.weight, codes)
        total += float(loss) * len(codes)
    return total / len(batch.codes)


def curve(
    lesson: Lesson,
    base: TransformerConfig,
    variant: Variant,
    seed: int,
    seconds: float,
    points: int,
) -> list[Point]:
    """Train one variant for `seconds`, compilation included, with losses at `points` moments.

    Schedules follow the clock after compilation, as under `minutes`. Evaluations stop the clock.
    """
    fresh = {"seed": seed, "minutes": seconds / 60, "steps": 10**9}
    training = base.training.model_copy(update=fresh | variant.training)
    config = base.model_copy(update={**variant.model, "training": training})
    torch.manual_seed(seed)
    torch.compiler.reset()
    sizes = (lesson.vocabulary.vocabulary_size, lesson.vocabulary.context)
    model = Dalle(config, *sizes, lesson.tokenizer.code_count, lesson.tokenizer.grid)
    learner = Learner(DalleObjective(model, config), training, Accelerator(mixed_precision="no"))
    held_out = to_device(lesson.held_out, learner.device)
    batches = CodeBatches(
        lesson.batches.cache, lesson.batches.table, training.batch_size, seed=seed
    )
    started = time.monotonic()
    compile_if_it_pays(
        learner,
        training,
        lambda: to_device(batches(0), learner.device),
        0,
        0.0,
        seconds,
        time.monotonic,
        print,
    )
    found: list[Point] = []
    paused, overhead = 0.0, time.monotonic() - started
    for step, batch in steps(batches):
        elapsed = time.monotonic() - started - paused
        while len(found) < points and elapsed >= seconds * (len(found) + 1) / points:
            began = time.monotonic()
            found.append(Point(elapsed, step, held_out_loss(averaged(learner), held_out)))
            paused += time.monotonic() - began
        if elapsed >= seconds:
            return found
        progress = max(0.0, elapsed - overhead) / max(1e-9, seconds - overhead)
        learner.gradients(to_device(batch, learner.device), step, progress)
        learner.update(progress)
    raise AssertionError("batches never end")


def averaged(learner: Learner) -> Dalle:
    """The averaged model of a learner, in eval mode."""
    model = learner.average.module
    assert isinstance(model, Dalle)
    return model


def steps(batches: CodeBatches) -> Iterator[tuple[int, CodeBatch]]:
    """Every batch with its number, made ahead in a thread."""
    return zip(count(), prefetch(batches, 0, 10**9), strict=False)


def seconds_to(loss: float, points: list[Point]) -> float | None:
    """When a curve first reached `loss`, between two of its points; None where it never did."""
    before: Point | None = None
    for point in points:
        if point.loss <= loss:
            if before is None or before.loss == point.loss:
                return point.seconds
            share = (before.loss - loss) / (before.loss - point.loss)
            return before.seconds + share * (point.seconds - before.seconds)
        before = point
    return None


def table(curves: dict[str, list[list[Point]]], seconds: float) -> list[str]:
    """A line per variant: its last loss, steps, and the time to the plain variant's last loss."""
    target = median(points[-1].loss for points in curves[PLAIN])
    lines = [
        f"{PLAIN} ends at {target:.4f} nats per code after {seconds:.0f} s; medians over seeds",
        f"{'variant':24}{'loss':>9}{'steps':>9}{'s to it':>9}{'of it':>7}",
    ]
    for name, runs in curves.items():
        loss = median(points[-1].loss for points in runs)
        made = median(points[-1].step for points in runs)
        times = [reached for points in runs if (reached := seconds_to(target, points)) is not None]
        took = f"{'never':>9}"
        if 2 * len(times) > len(runs):
            took = f"{median(times):>9.0f}{median(times) / seconds:>7.0%}"
        lines.append(f"{name:24}{loss:>9.4f}{made:>9.0f}{took}")
    return lines


def main(
    run: Annotated[Path, tyro.conf.Positional],
    seconds: float = 240.0,
    seeds: tuple[int, ...] = (0,),
    points: int = 12,
    held_out: int = 512,
    variants: tuple[str, ...] = tuple(VARIANTS),
    out: Path | None = None,
) -> None:
    """Train every variant for the same time and compare when they reach the plain one's loss.

    Args:
        run: a run folder with an image tokenizer, a vocabulary and the pictures' cache.
        seconds: wall time of each training.
        seeds: one training of every variant for each.
        points: evaluations along the way.
        held_out: validation pictures to evaluate on.
        variants: some of the variants; the plain one is always among them.
        out: where the curves are written as JSON.
    """
    unknown = [name for name in variants if name not in VARIANTS]
    if unknown:
        raise SystemExit(f"--variants {unknown}: choose from {', '.join(map(repr, VARIANTS))}")
    folder = RunFolder.open(run)
    lesson = prepare(folder, held_out)
    base = folder.experiment.transformer
    chosen = [name for name in VARIANTS if name in variants or name == PLAIN]
    curves: dict[str, list[list[Point]]] = {name: [] for name in chosen}
    # Seeds outside: a machine that slows down slows all variants.
    for seed in seeds:
        for name in chosen:
            print(f"seed {seed}: {name}", flush=True)
            curves[name].append(curve(lesson, base, VARIANTS[name], seed, seconds, points))
            print("  " + "  ".join(f"{p.seconds:.0f} s {p.loss:.3f}" for p in curves[name][-1]))
    print("\n".join(table(curves, seconds)))
    if out is not None:
        record = {
            name: [[vars(p) for p in points] for points in runs] for name, runs in curves.items()
        }
        settings = {"run": str(run), "seconds": seconds, "seeds": seeds, "points": points}
        out.write_text(json.dumps(settings | {"curves": record}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)

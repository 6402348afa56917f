"""What each choice brings to a transformer: train it without, equally long, from several seeds.

    python -m benchmarks.leave_one_out RUN [--seconds 170] [--seeds 0 1 2] [--out result.json]

RUN holds an image tokenizer, its codes and a vocabulary. Every variant trains the run's transformer
for the same wall time on the same batches; its image loss on held-out pictures is taken along the
way, off the clock. The yardstick is what the plain variant (AdamW, no compile) ends at. Where the
run is of drawn scenes, captions are painted at the end, one picture each, and judged by rule.
`--beside` adds the results of earlier calls to the table.
"""

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from statistics import median, stdev
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from accelerate import Accelerator

from dalle_mini_impl.captions import CaptionTokenizer
from dalle_mini_impl.data.batches import CodeBatch, CodeBatches, pictures, prefetch
from dalle_mini_impl.decoding import CodeSampler
from dalle_mini_impl.evaluation.prompts import HALVES, Prompt, judge, scene_prompts
from dalle_mini_impl.images import to_images
from dalle_mini_impl.models.dalle import Dalle, TransformerConfig
from dalle_mini_impl.models.image_tokenizer import ImageTokenizer
from dalle_mini_impl.pipeline import load_image_tokenizer
from dalle_mini_impl.run import RunFolder
from dalle_mini_impl.sampling import SamplingConfig
from dalle_mini_impl.training.compilation import compile_if_it_pays
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
    "no text loss": Variant(model={"text_weight": 0.0}),
}

MOST_OBJECTS = 2
"""Objects in the scenes that are painted; three are too hard for so short a training."""


@dataclass(frozen=True)
class Point:
    """Held-out image loss, in nats per code, after some wall seconds and steps."""

    seconds: float
    step: int
    loss: float


@dataclass(frozen=True)
class Lesson:
    """What all variants share: batches by step and seed, and what none of them sees."""

    batches: CodeBatches
    vocabulary: CaptionTokenizer
    tokenizer: ImageTokenizer
    held_out: CodeBatch
    sampling: SamplingConfig
    prompts: list[Prompt]
    """Captions to paint, none where the collection has no judge."""


@dataclass(frozen=True)
class Trained:
    """One training of one variant."""

    seed: int
    points: list[Point]
    painted: dict[str, float]
    """Share of captions all of whose claims hold, by group and half, one picture each."""


def prepare(run: RunFolder, held_out: int, prompts: int) -> Lesson:
    """The run's batches, its first `held_out` validation pictures, captions of unseen scenes.

    prompts: for each number of objects and half.
    """
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
    scenes = shop.experiment.data.shapes
    drawn = shop.experiment.data.path == "shapes"
    asked = [
        prompt
        for objects in range(1, min(MOST_OBJECTS, scenes.max_objects) + 1)
        for half in HALVES
        for prompt in scene_prompts(scenes, half, objects, prompts if drawn else 0)
    ]
    unseen = CodeBatch(codes, captions)
    sampling = shop.experiment.sampling
    return Lesson(batches, shop.vocabulary, tokenizer, unseen, sampling, asked)


@torch.no_grad()
def held_out_loss(model: Dalle, batch: CodeBatch, rows: int = 128) -> float:
    """Mean image loss in fp32, over parts of the batch that fit in memory."""
    parts = zip(batch.captions.split(rows), batch.codes.split(rows), strict=True)
    total = sum(float(model.log_likelihood(*part).sum()) for part in parts)
    return -total / batch.codes.numel()


@torch.no_grad()
def painted(model: Dalle, lesson: Lesson) -> dict[str, float]:
    """Paint every caption once and judge it."""
    if not lesson.prompts:
        return {}
    device = next(model.parameters()).device
    ids = torch.from_numpy(lesson.vocabulary.encode([p.caption for p in lesson.prompts]))
    sampler, truths = CodeSampler(model), []
    for numbers in torch.arange(len(ids)).split(lesson.sampling.batch_size):
        codes = sampler(ids[numbers].to(device), numbers.tolist(), lesson.sampling)
        pictures_of = to_images(lesson.tokenizer.decode(codes.cpu()))
        for at, picture in zip(numbers.tolist(), pictures_of, strict=True):
            truths.append(all(judge(np.asarray(picture), lesson.prompts[at].claims).values()))
    groups: dict[str, list[bool]] = {}
    for prompt, truth in zip(lesson.prompts, truths, strict=True):
        groups.setdefault(f"{prompt.objects} {prompt.half}", []).append(truth)
    return {name: sum(own) / len(own) for name, own in groups.items()}


def train_variant(
    lesson: Lesson,
    base: TransformerConfig,
    variant: Variant,
    seed: int,
    seconds: float,
    points: int,
) -> Trained:
    """Train one variant for `seconds`, compilation included, with losses at `points` moments.

    Schedules follow the clock after compilation, as under `minutes`. Evaluations stop the clock.
    """
    fresh = {"seed": seed, "minutes": seconds / 60, "steps": 10**9}
    training = base.training.model_copy(update=fresh | variant.training)
    config = base.model_copy(update={**variant.model, "training": training})
    torch.manual_seed(seed)
    torch.compiler.reset()
    sizes = (lesson.vocabulary.vocabulary_size, lesson.vocabulary.context)
    tokenizer = lesson.tokenizer
    model = Dalle(config, *sizes, tokenizer.code_count, tokenizer.grid, tokenizer.factors)
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
            return Trained(seed, found, painted(averaged(learner), lesson))
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


def table(trained: dict[str, list[Trained]], seconds: float) -> list[str]:
    """Markdown: a line per variant with means over the seeds, and the time to the plain loss."""
    groups = list(next(iter(trained.values()))[0].painted)
    target = mean([own.points[-1].loss for own in trained.get(PLAIN, [])])
    lines = [
        f"| | nats per code | steps | time to the plain loss | {' | '.join(groups)} |",
        "|---|---|---|---|" + "---|" * len(groups),
    ]
    for name, runs in trained.items():
        losses = [own.points[-1].loss for own in runs]
        made = mean([own.points[-1].step for own in runs])
        times = [t for own in runs if (t := seconds_to(target, own.points)) is not None]
        took = f"{median(times) / seconds:.0%}" if 2 * len(times) > len(runs) else "never"
        shares = [f"{spread([100 * own.painted[group] for own in runs], 0)} %" for group in groups]
        lines.append(
            f"| {name} | {spread(losses, 3)} | {made:.0f} | {took} | {' | '.join(shares)} |"
        )
    return lines


def mean(values: Sequence[float]) -> float:
    """Their mean; not a number where there is none."""
    return sum(values) / len(values) if values else math.nan


def spread(values: Sequence[float], decimals: int) -> str:
    """Mean and, of several values, the standard deviation."""
    middle = f"{mean(values):.{decimals}f}"
    return middle if len(values) < 2 else f"{middle} ± {stdev(values):.{decimals}f}"


def main(
    run: Annotated[Path, tyro.conf.Positional],
    seconds: float = 170.0,
    seeds: tuple[int, ...] = (0,),
    points: int = 12,
    held_out: int = 512,
    prompts: int = 100,
    variants: tuple[str, ...] = tuple(VARIANTS),
    beside: tuple[Path, ...] = (),
    threads: int = 0,
    out: Path | None = None,
) -> None:
    """Train every variant for the same time and compare what they learned.

    Args:
        run: a run folder with an image tokenizer, a vocabulary and the pictures' cache.
        seconds: wall time of each training.
        seeds: one training of every variant for each.
        points: evaluations along the way.
        held_out: validation pictures to evaluate on.
        prompts: captions to paint for each number of objects and half.
        variants: some of the variants.
        beside: results of earlier calls, equally long, to add to the table.
        threads: threads to compute with; 0 uses all cores.
        out: where the curves are written as JSON.
    """
    unknown = [name for name in variants if name not in VARIANTS]
    if unknown:
        raise SystemExit(f"--variants {unknown}: choose from {', '.join(map(repr, VARIANTS))}")
    if threads:
        torch.set_num_threads(threads)
    folder = RunFolder.open(run)
    lesson = prepare(folder, held_out, prompts)
    base = folder.experiment.transformer
    trained: dict[str, list[Trained]] = {}
    for path in beside:
        for name, runs in json.loads(path.read_text(encoding="utf-8"))["trained"].items():
            trained.setdefault(name, []).extend(read(own) for own in runs)
    # Seeds outside: a machine that slows down slows all variants.
    for seed in seeds:
        for name in variants:
            print(f"seed {seed}: {name}", flush=True)
            own = train_variant(lesson, base, VARIANTS[name], seed, seconds, points)
            trained.setdefault(name, []).append(own)
            print("  " + "  ".join(f"{p.seconds:.0f} s {p.loss:.3f}" for p in own.points))
            print("  " + "  ".join(f"{group} {share:.0%}" for group, share in own.painted.items()))
            if out is not None:
                settings = {"run": str(run), "seconds": seconds, "points": points}
                record = {key: [asdict(each) for each in runs] for key, runs in trained.items()}
                text = json.dumps(settings | {"trained": record}, indent=1)
                out.write_text(text + "\n", encoding="utf-8")
    print("\n".join(table(trained, seconds)))


def read(record: dict[str, Any]) -> Trained:
    """A training as an earlier call wrote it."""
    return Trained(record["seed"], [Point(**p) for p in record["points"]], record["painted"])


if __name__ == "__main__":
    tyro.cli(main)

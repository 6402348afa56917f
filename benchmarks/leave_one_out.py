"""Ablations of a transformer: train each variant for the same time, from several seeds.

    python -m benchmarks.leave_one_out RUN [--seconds 170] [--seeds 0 1 2] [--out result.json]

RUN holds an image tokenizer, its codes and a vocabulary. Every variant trains the run's transformer
for the same wall time on the same batches; its image loss on held-out images is measured along the
way, with the clock stopped. The reference is the final loss of the plain variant (AdamW). All are
eager but "compiled", whose compilation counts as training time. For a run of synthetic scenes
captions are sampled at the end, one image each, and judged by rule. `--beside` adds the results of
earlier calls.
"""

import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median, stdev
from typing import Annotated, Any

import torch
import tyro

from benchmarks.variants import Point, Trained, Variant, prepare, train_variant
from dalle_mini_impl.cli.output import write_json
from dalle_mini_impl.runs.folder import RunFolder

PLAIN = "AdamW instead of Muon"
FULL = "full"

VARIANTS = {
    FULL: Variant(),
    PLAIN: Variant({"optimizer": "adamw"}),
    "compiled": Variant({"compile": "on"}),
    "fp32": Variant({"precision": "fp32"}),
    "no EMA": Variant({"ema": 0.0}),
    "the paper's block": Variant(model={"block": "dalle"}),
    "no upper neighbor": Variant(model={"upper_neighbor": False}),
    "no text loss": Variant(model={"text_weight": 0.0}),
}


def seconds_to(loss: float, points: list[Point]) -> float:
    """When a curve first reached `loss`, between two of its points; infinite if it never did."""
    before: Point | None = None
    for point in points:
        if point.loss <= loss:
            if before is None or before.loss == point.loss:
                return point.seconds
            share = (before.loss - loss) / (before.loss - point.loss)
            return before.seconds + share * (point.seconds - before.seconds)
        before = point
    return math.inf


def table(trained: dict[str, list[Trained]], seconds: float) -> list[str]:
    """Markdown: a line per variant with means over the seeds, and the time to the plain loss."""
    groups = list(next(iter(trained.values()))[0].sampled)
    plain = trained.get(PLAIN, [])
    target = mean([own.points[-1].loss for own in plain])
    lines = [
        f"| | nats per code | steps | time to the plain loss | {' | '.join(groups)} |",
        "|---|---|---|---|" + "---|" * len(groups),
    ]
    for name, runs in trained.items():
        losses = [own.points[-1].loss for own in runs]
        made = mean([own.points[-1].step for own in runs])
        took = median([seconds_to(target, own.points) for own in runs]) / seconds
        reached = f"{took:.0%}" if took < math.inf else "never"
        shares = [f"{spread([100 * own.sampled[group] for own in runs], 0)} %" for group in groups]
        cells = (name, spread(losses, 3), f"{made:.0f}", reached if plain else "", *shares)
        lines.append(f"| {' | '.join(cells)} |")
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
        run: a run folder with an image tokenizer, a vocabulary and the images' cache.
        seconds: wall time of each training.
        seeds: one training of every variant for each.
        points: evaluations along the way.
        held_out: validation images to evaluate on.
        prompts: captions to sample for each number of objects and half.
        variants: some of the variants.
        beside: results of earlier calls, equally long, to add to the table.
        threads: threads to compute with; 0 uses all cores.
        out: where the curves are written as JSON.
    """
    check_names(variants, VARIANTS)
    if threads:
        torch.set_num_threads(threads)
    folder = RunFolder.open(run)
    setup = prepare(folder, held_out, prompts)
    base = folder.experiment.transformer
    trained: dict[str, list[Trained]] = earlier(beside, "seconds", seconds, read)
    # Seeds outside: a machine that slows down slows all variants.
    for seed in seeds:
        for name in variants:
            print(f"seed {seed}: {name}", flush=True)
            own = train_variant(setup, base, VARIANTS[name], seed, seconds, points)
            trained.setdefault(name, []).append(own)
            print("  " + "  ".join(f"{p.seconds:.0f} s {p.loss:.3f}" for p in own.points))
            print("  " + "  ".join(f"{group} {share:.0%}" for group, share in own.sampled.items()))
            if out is not None:
                settings = {"run": str(run), "seconds": seconds, "points": points}
                record = {key: [asdict(each) for each in runs] for key, runs in trained.items()}
                write_json(out, settings | {"trained": record})
    print("\n".join(table(trained, seconds)))


def check_names(names: Sequence[str], known: Collection[str]) -> None:
    """SystemExit where a name is not among the known variants."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"--variants {unknown}: choose from {', '.join(map(repr, known))}")


def earlier(
    paths: Sequence[Path], unit: str, length: float, read: Callable[[dict[str, Any]], Any]
) -> dict[str, list[Any]]:
    """Trainings by variant that earlier calls wrote; SystemExit where they took another time."""
    trained: dict[str, list[Any]] = {}
    for path in paths:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record[unit] != length:
            raise SystemExit(f"{path}: trained for {record[unit]:g} {unit}, these {length:g}")
        for name, runs in record["trained"].items():
            trained.setdefault(name, []).extend(read(own) for own in runs)
    return trained


def read(record: dict[str, Any]) -> Trained:
    """A training as an earlier call wrote it."""
    return Trained(record["seed"], [Point(**p) for p in record["points"]], record["sampled"])


if __name__ == "__main__":
    tyro.cli(main)

"""What a run's CLIP is good for: naming photographs, and finding pictures and captions.

    python -m benchmarks.clip_at_work classify RUN DATA --out zero_shot.json
    python -m benchmarks.clip_at_work retrieve RUN --split held_out --out retrieval.json

`classify` names CIFAR-10's test pictures from the run's caption templates, without a classifier
having been trained, and beside it with a linear probe on the same vectors. `retrieve` ranks a
run's unseen pictures and captions, and each caption among wrong ones with an attribute exchanged.
Shares stand with Wilson's 95 % intervals.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from benchmarks.cifar import CLASSES, read
from dalle_mini_impl.data.negatives import hard_negatives
from dalle_mini_impl.evaluation.agreement import (
    measure_hard_negatives,
    measure_retrieval,
    wrong_captions,
)
from dalle_mini_impl.evaluation.collection import CollectionSettings, HeldOut
from dalle_mini_impl.evaluation.page import Part, Table, share
from dalle_mini_impl.evaluation.prompts import interval
from dalle_mini_impl.ranking import RunClip
from dalle_mini_impl.run import RunFolder
from dalle_mini_impl.zero_shot import ZeroShotClassifier


@dataclass(frozen=True)
class Classify:
    """CIFAR-10's classes by name, beside a linear probe."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run whose CLIP was trained on CIFAR-10 with templates."""
    data: Annotated[Path, tyro.conf.Positional]
    """Folder with CIFAR-10's Parquet files."""
    train_examples: int = 50_000
    """Training pictures that the probe learns from."""
    test_examples: int = 10_000
    decay: float = 1e-4
    """Weight of the probe's squared weights, whose inputs have unit variance."""
    out: Path | None = None
    """JSON file to write."""


@dataclass(frozen=True)
class Retrieve:
    """Unseen pictures and captions of the run's own collection."""

    run: Annotated[Path, tyro.conf.Positional]
    split: Literal["validation", "held_out"] = "validation"
    max_examples: int = 1000
    wrong: int = 7
    """Captions with an attribute exchanged that stand beside the true one."""
    seed: int = 0
    out: Path | None = None
    """JSON file to write."""


def probe_accuracy(
    train: Tensor, labels: Tensor, test: Tensor, truth: Tensor, decay: float
) -> tuple[float, int]:
    """Accuracy of multinomial logistic regression on standardised vectors, and the hits."""
    mean, deviation = train.mean(0), train.std(0).clamp_min(1e-6)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    model = nn.Linear(train.shape[1], int(labels.max()) + 1)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(train), labels) + decay * model.weight.square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        hits = int((model(test).argmax(1) == truth).sum())
    return hits / len(test), hits


def pixels_of(images: Tensor, size: int) -> Tensor:
    """uint8 pictures in [0, 1], at the side that the CLIP looks at."""
    pixels = images.float() / 255
    if pixels.shape[-1] == size:
        return pixels
    return F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)


def classify(arguments: Classify) -> list[Part]:
    """Zero-shot accuracy with all templates and with each, and the linear probe's."""
    clip = RunClip.from_run(arguments.run)
    templates = RunFolder.open(arguments.run).experiment.data.templates
    images, labels = read("train-*.parquet", arguments.data)
    test, truth = read("test-*.parquet", arguments.data)
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    chosen = chosen[: arguments.train_examples]
    test, truth = test[: arguments.test_examples], truth[: arguments.test_examples]
    vectors = clip.encode_images(pixels_of(test, clip.image_size))
    rows, figures, n = [], {}, len(test)

    def add(name: str, hits: int) -> None:
        low, high = interval(hits, n)
        figures[name] = {"accuracy": hits / n, "low": low, "high": high}
        rows.append([name, share(hits / n, (low, high))])

    for name, used in {"all templates": templates, **{t: (t,) for t in templates}}.items():
        classifier = ZeroShotClassifier(clip, CLASSES, used)
        guesses = (vectors @ classifier.vectors.T).argmax(1)
        add(f"zero-shot, {name}", int((guesses == truth).sum()))
        if name == "all templates":
            figures["per_class"] = {
                label: float((guesses[truth == at] == at).float().mean())
                for at, label in enumerate(CLASSES)
            }
    known = clip.encode_images(pixels_of(images[chosen], clip.image_size))
    _, hits = probe_accuracy(known, labels[chosen], vectors, truth, arguments.decay)
    add("linear probe", hits)
    note = f"{n:,} test pictures; the probe saw {len(chosen):,} training pictures with labels."
    return [Part("CIFAR-10", figures, [Table("CIFAR-10", ["", "accuracy"], rows, note)])]


def retrieve(arguments: Retrieve) -> list[Part]:
    """Recall both ways, and the true caption among wrong ones."""
    run = RunFolder.open(arguments.run)
    clip = RunClip.from_run(run)
    settings = CollectionSettings(
        arguments.split, max_examples=arguments.max_examples, seed=arguments.seed
    )
    held_out = HeldOut(run, settings, print)
    images = clip.encode_images(held_out.images)
    texts = clip.encode_texts(held_out.captions)
    parts = [measure_retrieval(images, texts, held_out.same)]
    negative = hard_negatives(held_out.store.captions, held_out.store.attributes)
    made = [
        wrong_captions(negative, held_out.numbers, held_out.rows, arguments.seed + shift)
        for shift in range(arguments.wrong)
    ]
    # A word that has no like can only be exchanged in some captions: those count.
    rows = sorted(set.intersection(*(set(found) for found, _ in made)))
    if not rows:
        return parts
    wrong = [dict(zip(found, captions, strict=True)) for found, captions in made]
    vectors = [clip.encode_texts([own[row] for row in rows]) for own in wrong]
    parts.append(measure_hard_negatives(images[rows], texts[rows], vectors[0]))
    return [*parts, among_wrong(images[rows], texts[rows], vectors)]


def among_wrong(images: Tensor, texts: Tensor, wrong: Sequence[Tensor]) -> Part:
    """How often the true caption is first among all the wrong ones of its picture."""
    best = torch.stack([(images * own).sum(1) for own in wrong]).amax(0)
    hits, n = int(((images * texts).sum(1) > best).sum()), len(images)
    low, high = interval(hits, n)
    figures = {"pictures": n, "wrong": len(wrong), "accuracy": hits / n, "low": low, "high": high}
    chance = share(1 / (1 + len(wrong)))
    rows = [[f"{n:,}", str(len(wrong)), share(hits / n, (low, high)), chance]]
    columns = ["pictures", "wrong captions each", "true one first", "by chance"]
    return Part("CLIP: the caption among wrong ones", figures, [Table("", columns, rows)])


def main(arguments: Classify | Retrieve) -> None:
    """Measure, print and write."""
    parts = classify(arguments) if isinstance(arguments, Classify) else retrieve(arguments)
    for part in parts:
        print(f"\n{part.name}")
        for table in part.tables:
            print(table)
    if arguments.out is not None:
        values: dict[str, Any] = {"settings": asdict(arguments)}
        values |= {part.name: part.figures for part in parts}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(values, indent=1, default=str) + "\n", "utf-8")


if __name__ == "__main__":
    main(
        tyro.cli(
            Annotated[Classify, tyro.conf.subcommand("classify")]
            | Annotated[Retrieve, tyro.conf.subcommand("retrieve")]
        )
    )

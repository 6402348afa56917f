"""What a run's CLIP is good for: naming photographs, and finding images and captions.

    python -m benchmarks.clip_at_work classify RUN --out zero_shot.json
    python -m benchmarks.clip_at_work retrieve RUN --split held_out --out retrieval.json

`classify` names the unseen images of a run whose captions are templates with labels (such as
CIFAR-10's) by prompts alone, and beside it with a linear probe on the same vectors. `retrieve`
ranks a run's unseen images and captions, and each caption among wrong ones with an attribute
exchanged.
Shares stand with Wilson's 95 % intervals.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from dalle_mini_impl.data.augment import load_images
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.preparation import prepare
from dalle_mini_impl.data.store import Store
from dalle_mini_impl.evaluation.held_out import CollectionSettings, HeldOut
from dalle_mini_impl.evaluation.measures.agreement import (
    measure_hard_negatives,
    measure_retrieval,
)
from dalle_mini_impl.evaluation.measures.intervals import wilson_interval
from dalle_mini_impl.evaluation.report.page import ReportPart, Table, share
from dalle_mini_impl.retrieval.encoder import RunClip
from dalle_mini_impl.retrieval.zero_shot import ZeroShotClassifier
from dalle_mini_impl.runs.folder import RunFolder


@dataclass(frozen=True)
class Classify:
    """Classes by name, beside a linear probe."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run whose CLIP was trained on labels with data.templates."""
    train_examples: int = 50_000
    """Training images that the probe learns from."""
    test_examples: int = 10_000
    decay: float = 1e-4
    """Weight of the probe's squared weights, whose inputs have unit variance."""
    out: Path | None = None
    """JSON file to write."""


@dataclass(frozen=True)
class Retrieve:
    """Unseen images and captions of the run's own collection."""

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
    """Accuracy of multinomial logistic regression on standardized vectors, and the hits."""
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


def labels_of(store: Store, template: str) -> list[str]:
    """Each image's label, from the caption that the first template made of it."""
    before, after = template.split("{label}", 1)
    return [own[0].removeprefix(before).removesuffix(after) for own in store.captions]


def vectors_of(clip: RunClip, store: Store, rows: np.ndarray, data: DataConfig) -> Tensor:
    """Unit vectors of images as the CLIP saw them in training, without augmentation."""
    parts = np.array_split(rows, max(1, len(rows) // 500))
    return torch.cat([clip.encode_images(load_images(store, part, data, None)) for part in parts])


def classify(arguments: Classify) -> list[ReportPart]:
    """Zero-shot accuracy with all templates and with each, and the linear probe's."""
    run = RunFolder.open(arguments.run)
    clip, data = RunClip.from_run(run), run.experiment.data
    train, test = (prepare(data, split, run.cache / "images") for split in ("train", "validation"))
    known, truth = labels_of(train, data.templates[0]), labels_of(test, data.templates[0])
    names = sorted(set(known))
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(train))[: arguments.train_examples]
    rows = rng.permutation(len(test))[: arguments.test_examples]
    goal = torch.tensor([names.index(truth[row]) for row in rows])
    vectors = vectors_of(clip, test, rows, data)
    lines, figures, n = [], {}, len(rows)

    def add(name: str, hits: int) -> None:
        low, high = wilson_interval(hits, n)
        figures[name] = {"accuracy": hits / n, "low": low, "high": high}
        lines.append([name, share(hits / n, (low, high))])

    for name, used in {
        "all templates": data.templates,
        **{t: (t,) for t in data.templates},
    }.items():
        classifier = ZeroShotClassifier(clip, names, used)
        guesses = (vectors @ classifier.vectors.T).argmax(1)
        add(f"zero-shot, {name}", int((guesses == goal).sum()))
        if name == "all templates":
            figures["per_class"] = {
                label: float((guesses[goal == at] == at).float().mean())
                for at, label in enumerate(names)
            }
    labels = torch.tensor([names.index(known[row]) for row in chosen])
    learned = vectors_of(clip, train, chosen, data)
    _, hits = probe_accuracy(learned, labels, vectors, goal, arguments.decay)
    add("linear probe", hits)
    note = f"{n:,} unseen images; the probe saw {len(chosen):,} training images with labels."
    return [ReportPart("CLIP: classification", figures, [Table("", ["", "accuracy"], lines, note)])]


def retrieve(arguments: Retrieve) -> list[ReportPart]:
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
    made = [held_out.wrong_captions(arguments.seed + shift) for shift in range(arguments.wrong)]
    # A word that has no like can only be exchanged in some captions: those count.
    rows = sorted(set.intersection(*(set(found) for found, _ in made)))
    if not rows:
        return parts
    wrong = [dict(zip(found, captions, strict=True)) for found, captions in made]
    vectors = [clip.encode_texts([own[row] for row in rows]) for own in wrong]
    parts.append(measure_hard_negatives(images[rows], texts[rows], vectors[0]))
    distinct = [len({own[row] for own in wrong}) for row in rows]
    return [*parts, among_wrong(images[rows], texts[rows], vectors, distinct)]


def among_wrong(
    images: Tensor, texts: Tensor, wrong: Sequence[Tensor], distinct: Sequence[int]
) -> ReportPart:
    """How often the true caption is first among all the wrong ones of its image.

    distinct: how many different wrong captions each image has; they are chosen independently.
    """
    best = torch.stack([(images * own).sum(1) for own in wrong]).amax(0)
    hits, n = int(((images * texts).sum(1) > best).sum()), len(images)
    low, high = wilson_interval(hits, n)
    each, chance = float(np.mean(distinct)), float(np.mean([1 / (1 + own) for own in distinct]))
    figures = {"images": n, "wrong": each, "accuracy": hits / n, "low": low, "high": high}
    figures["by_chance"] = chance
    rows = [[f"{n:,}", f"{each:.1f}", share(hits / n, (low, high)), share(chance)]]
    columns = ["images", "different wrong captions each", "true one first", "by chance"]
    return ReportPart("CLIP: the caption among wrong ones", figures, [Table("", columns, rows)])


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

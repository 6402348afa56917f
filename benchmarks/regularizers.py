"""What each regularizer of the transformer brings on a collection cut to a number of images.

    python -m benchmarks.regularizers --emoji data/emoji --images 1000 --minutes 10 \
        --variants none dropout all transformer.dropout=0.3,transformer.label_smoothing=0.05

One image tokenizer is trained on exactly these images and kept in --folder for later calls. The
transformer is then trained once per variant and seed, for equal minutes, with the configuration's
rules for early stopping and the best weights; `dalle evaluate` measures it on held-out images. A
variant is one of VARIANTS, or settings joined by commas. Trained variants are not trained again.
"""

import json
import math
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.leave_one_out import spread
from benchmarks.record import environment
from dalle_mini_impl.cli.output import write_json
from dalle_mini_impl.evaluation.evaluate_collection import evaluate_collection
from dalle_mini_impl.evaluation.held_out import CollectionSettings
from dalle_mini_impl.experiment import Experiment, load_experiment
from dalle_mini_impl.precision import best_device
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.training.run_stages import missing_stages, run_stages

NONE: dict[str, Any] = {
    "transformer.dropout": 0.0,
    "transformer.stochastic_depth": 0.0,
    "transformer.label_smoothing": 0.0,
    "transformer.code_replacement": 0.0,
    "transformer.caption_token_dropout": 0.0,
    "transformer.posterior_temperature": 0.0,
    "captions.dropout": 0.0,
    "data.random_shift": 0,
}
"""No regularizers, whatever the configuration has; every variant starts from here."""
VARIANTS: dict[str, dict[str, Any]] = {
    "none": {},
    "dropout": {"transformer.dropout": 0.1},
    "stochastic-depth": {"transformer.stochastic_depth": 0.2},
    "label-smoothing": {"transformer.label_smoothing": 0.1},
    "code-replacement": {"transformer.code_replacement": 0.1},
    "caption-token-dropout": {"transformer.caption_token_dropout": 0.1},
    "bpe-dropout": {"captions.dropout": 0.1},
    "posterior": {"transformer.posterior_temperature": 0.25},
    "shifts": {"data.random_shift": 2},
    "weight-decay": {"transformer.training.weight_decay": 0.1},
}
VARIANTS["all"] = {name: value for own in VARIANTS.values() for name, value in own.items()}

SHARED = ("data", "captions", "image_tokenizer")
"""Sections that the shared image tokenizer depends on."""


@dataclass(frozen=True)
class Arguments:
    """Train the transformer with each regularizer for equal minutes, and measure it."""

    images: int
    """Training images."""
    minutes: float
    """Training of each transformer."""
    emoji: Path | None = None
    """Folder of the emoji, trained as in configs/emoji.yaml."""
    cifar10: Path | None = None
    """Folder of CIFAR-10's Parquet files, trained as in configs/cifar10.yaml."""
    config: str | None = None
    """Another configuration: a YAML or the name of a shipped one."""
    settings: tuple[str, ...] = ()
    """Settings that differ from the configuration's, as transformer.depth=4."""
    tokenizer_minutes: float | None = None
    """Training of the image tokenizer; none takes the configuration's."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Names of VARIANTS, or settings joined by commas."""
    seeds: tuple[int, ...] = (0,)
    """One training of every variant for each."""
    samples: int = 256
    """Held-out images at most, and samples."""
    folder: Path = Path("build/regularizers")
    """Folder of the runs, which later calls use again."""
    out: Path | None = None
    """Where the figures are written as JSON."""


@dataclass(frozen=True)
class Trained:
    """One training of one variant, measured on `held_out` images.

    Bits per code with the true caption, another image's and none.
    """

    seed: int
    steps: int
    best_step: int
    """Its weights are kept and measured."""
    true: float
    another: float
    none: float
    true_is_likelier: float
    """Share of images that are likelier with their caption than with another's."""
    near_copies: float
    """Share of samples that are near copies of a training image, one of each held-out caption."""
    near_copies_by_chance: float
    """The same for held-out images, reconstructed."""
    held_out: int


def collection(arguments: Arguments) -> tuple[str, str, dict[str, Any]]:
    """A name, the configuration and where its images are; SystemExit unless one is given."""
    emoji, cifar10, config = arguments.emoji, arguments.cifar10, arguments.config
    if [emoji, cifar10, config].count(None) != 2:
        raise SystemExit("name one of --emoji, --cifar10 and --config")
    if emoji is not None:
        return "emoji", "emoji", {"data.path": str(emoji)}
    if cifar10 is not None:
        files = {"path": f"{cifar10}/train-*.parquet", "held_out_path": f"{cifar10}/test-*.parquet"}
        return "cifar10", "cifar10", {f"data.{name}": value for name, value in files.items()}
    return Path(config or "").stem, config or "", {}


def parsed(settings: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE as a dictionary; SystemExit for anything else."""
    pairs = [setting.partition("=") for setting in settings]
    for name, sign, _ in pairs:
        if not sign:
            known = ", ".join(VARIANTS)
            raise SystemExit(f"{name}: neither a variant ({known}) nor SECTION.NAME=VALUE")
    return {name: value for name, _, value in pairs}


def settings_of(variant: str) -> dict[str, Any]:
    """What a variant changes, by dotted name."""
    return NONE | (VARIANTS[variant] if variant in VARIANTS else parsed(variant.split(",")))


def experiment_of(arguments: Arguments, variant: str = "none", seed: int = 0) -> Experiment:
    """The experiment of one training."""
    _, config, changes = collection(arguments)
    changes |= {"data.limit": arguments.images}
    changes |= {"transformer.training.minutes": arguments.minutes}
    if arguments.tokenizer_minutes is not None:
        changes |= {"image_tokenizer.training.minutes": arguments.tokenizer_minutes}
    changes |= parsed(arguments.settings) | settings_of(variant)
    return load_experiment(config, changes | {"transformer.training.seed": seed})


def shared_run(experiment: Experiment, path: Path) -> RunFolder:
    """A run with the vocabulary and the image tokenizer, trained now unless it is there.

    SystemExit if what is there was trained with other settings.
    """
    if not (path / "config.yaml").is_file():
        run = RunFolder.create(path, experiment)
    else:
        run = RunFolder.open(path)
        for section in SHARED:
            if getattr(run.experiment, section) != getattr(experiment, section):
                raise SystemExit(f"{path}: made with other settings of {section}; delete it")
    for stage in ("captions", "image_tokenizer"):
        if stage in missing_stages(run):
            run_stages(run, stage)
    return run


def trained_run(shared: RunFolder, experiment: Experiment, path: Path) -> RunFolder:
    """A run whose transformer is trained now, unless it is there already."""
    if (path / "config.yaml").is_file() and RunFolder.open(path).experiment != experiment:
        shutil.rmtree(path)
    if not path.is_dir():
        # The copy has links to the images, which are replaced and never changed in place.
        shutil.copytree(shared.cache, path / "cache", copy_function=os.link)
        RunFolder.create(path, experiment)
        for file in ("captions.json", "image_tokenizer.safetensors"):
            shutil.copy(shared.path / file, path / file)
    run = RunFolder.open(path)
    if "transformer" in missing_stages(run):
        run_stages(run, "transformer")
    return run


def measured(run: RunFolder, samples: int) -> Trained:
    """What `dalle evaluate` says of a run, and where its held-out loss was best."""
    records = [own for own in run.metrics() if own["stage"] == "transformer"]
    held_out = [own for own in records if "held_out_image" in own]
    settings = CollectionSettings(candidates=(1,), max_examples=samples)
    parts = evaluate_collection(run, settings, best_device())
    figures = {part.name: part.figures for part in parts}
    bits = figures["Transformer: does it read the caption?"]
    copies = figures["Samples: memorization"]
    return Trained(
        seed=run.experiment.transformer.training.seed,
        steps=max(own["step"] for own in records),
        best_step=min(held_out, key=lambda own: own["held_out_image"])["step"] if held_out else 0,
        true=bits["true caption"]["bits_per_token"],
        another=bits["another image's"]["bits_per_token"],
        none=bits["none"]["bits_per_token"],
        true_is_likelier=bits["another image's"]["true_is_likelier"],
        near_copies=copies["near_copies"],
        near_copies_by_chance=copies["near_copies_held_out"],
        held_out=figures["Image tokenizer"]["images"],
    )


def table(trained: dict[str, list[Trained]]) -> list[str]:
    """Markdown: a line per variant with means over the seeds."""
    lines = [
        "| | bits per code, true caption | another's | none | true one likelier | near copies "
        "| best at step | steps |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in trained.items():
        bits = [spread([getattr(own, by) for own in runs], 3) for by in ("true", "another", "none")]
        shares = [
            f"{spread([100 * getattr(own, by) for own in runs], 1)} %"
            for by in ("true_is_likelier", "near_copies")
        ]
        steps = [spread([getattr(own, by) for own in runs], 0) for by in ("best_step", "steps")]
        lines.append(f"| {' | '.join([name, *bits, *shares, *steps])} |")
    return lines


def main(arguments: Arguments) -> None:
    """Train, measure, print and write."""
    name = collection(arguments)[0]
    # All are checked before the first is trained.
    experiments = {
        (variant, seed): experiment_of(arguments, variant, seed)
        for seed in arguments.seeds
        for variant in arguments.variants
    }
    folder = arguments.folder / f"{name}-{arguments.images}"
    shared = shared_run(experiment_of(arguments), folder / "image_tokenizer")
    uniform = math.log2(shared.experiment.image_tokenizer.code_count)
    given = json.loads(json.dumps(asdict(arguments), default=str))
    conditions = environment(best_device(), ["regularizers", *sys.argv[1:]])
    record = {"arguments": given, "environment": conditions, "uniform": uniform}
    trained: dict[str, list[Trained]] = {}
    # Seeds outside: a machine that slows down slows all variants.
    for (variant, seed), experiment in experiments.items():
        print(f"{variant}, seed {seed}", flush=True)
        run = trained_run(shared, experiment, folder / f"{variant}-{seed}")
        own = measured(run, arguments.samples)
        trained.setdefault(variant, []).append(own)
        print(own, flush=True)
        if arguments.out is not None:
            record["trained"] = {key: [asdict(o) for o in runs] for key, runs in trained.items()}
            write_json(arguments.out, record)
    print(f"\n{arguments.images:,} images, a uniform guess costs {uniform:.2f} bits")
    print("\n".join(table(trained)))


if __name__ == "__main__":
    main(tyro.cli(Arguments))

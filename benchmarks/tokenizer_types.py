"""Image tokenizers beside each other: equal images, grid, width, time or steps, and seeds.

    python -m benchmarks.tokenizer_types --config configs/emoji.yaml --minutes 4 --seeds 0 1 2 \
        --held-out 0.15 --features benchmarks.cifar_classifier:embed --out tokenizers_emoji

The configuration gives the data and what all variants share (grid, width, blocks, batch size; the
autoencoder is the convolutional one);
`VARIANTS` says what differs. Prints means over the seeds with their spread; writes figures.json and
sheet.png, where each held-out image stands beside its reconstructions of the first seed.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor

from dalle_mini_impl.captions import CaptionTokenizer
from dalle_mini_impl.data.augment import load_images
from dalle_mini_impl.data.codes import perplexity
from dalle_mini_impl.data.preparation import prepare
from dalle_mini_impl.data.store import Store
from dalle_mini_impl.evaluation.measures.distances import frechet_distance
from dalle_mini_impl.evaluation.measures.features import Features, local_features, pixel_features
from dalle_mini_impl.evaluation.measures.reconstruction import (
    encode_again,
    measure_reconstructions,
    reconstruct,
)
from dalle_mini_impl.evaluation.report.page import Table
from dalle_mini_impl.experiment import Experiment, load_experiment
from dalle_mini_impl.images import contact_sheet, save_png, to_images
from dalle_mini_impl.models.code_head import split_code
from dalle_mini_impl.models.tokenizers.configs import ImageTokenizerConfig
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer, build_image_tokenizer
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.loading import frozen, load_image_tokenizer
from dalle_mini_impl.training.context import StageContext
from dalle_mini_impl.training.loop import train
from dalle_mini_impl.training.objectives.image_tokenizer import ImageTokenizerObjective
from dalle_mini_impl.training.perceptual_features import perceptual_features
from dalle_mini_impl.training.previews import reconstruction_previews
from dalle_mini_impl.training.stage_files import StageFiles

PAPER = {
    "logits": "free",
    "relaxation": "soft",
    "width": 64,
    "kl_weight": 6.6,
    "entropy_weight": 0.0,
    "noise": None,
}
"""The quantizer of DALL·E's dVAE (arXiv 2102.12092)."""
VARIANTS: dict[str, dict[str, Any]] = {
    "dvae": {},
    "fsq": {"preset": "fsq"},
    "vqgan": {"preset": "vqgan"},
    "vq": {"quantizer": {"type": "vector"}},
    "logits free": {"quantizer": {"logits": "free", "width": 64, "relaxation": "soft"}},
    "logit_laplace": {"likelihood": "logit_laplace"},
    "the paper's": {"quantizer": PAPER, "likelihood": "logit_laplace"},
    "the paper's with l2": {"quantizer": PAPER},
    "soft, noise that stays": {"quantizer": {"relaxation": "soft", "noise": None}},
    "relaxation soft": {"quantizer": {"relaxation": "soft"}},
    "relaxation hard": {"quantizer": {"relaxation": "hard"}},
    "no entropy": {"quantizer": {"entropy_weight": 0.0}},
    "entropy x10": {"quantizer": {"entropy_weight": 0.003}},
    "kl 0.1": {"quantizer": {"kl_weight": 0.1}},
    "kl 1": {"quantizer": {"kl_weight": 1.0}},
    "kl 1 from the start": {"quantizer": {"kl_weight": 1.0, "kl_warmup": 1e-6}},
    "width 3": {"quantizer": {"width": 3}},
    "width 6": {"quantizer": {"width": 6}},
    "width 8": {"quantizer": {"width": 8}},
    "width 16": {"quantizer": {"width": 16}},
    "two factors": {"quantizer": {"codes": [512, 512]}},
    "three factors": {"quantizer": {"codes": [512, 512, 512]}},
    "fsq, two factors": {"preset": "fsq", "quantizer": {"levels": ["8x8x8"] * 2}},
    "fsq, three factors": {"preset": "fsq", "quantizer": {"levels": ["8x8x8"] * 3}},
}
"""What differs between the tokenizers, of 512 codes a factor."""
COLUMNS = {"psnr": 2, "ssim": 4, "frechet_distance": 3, "usage": 3, "perplexity": 0, "steps": 0}
"""What the table shows, with the decimals of each."""


@dataclass(frozen=True)
class Arguments:
    """Train every variant from every seed and measure them on held-out images."""

    config: Path = Path("configs/emoji.yaml")
    """Data, image size and what the variants share."""
    data: str | None = None
    """Where the images are, if not where the configuration says."""
    variants: tuple[str, ...] = ("dvae", "fsq", "vqgan")
    """Names in VARIANTS."""
    minutes: float | None = 4.0
    """Training time of each; None for `steps` alone."""
    steps: int = 10**6
    """Training steps of each at most."""
    seeds: tuple[int, ...] = (0, 1, 2)
    held_out: float | None = None
    """Share of the images kept from training, if not the configuration's."""
    max_examples: int = 1024
    """Held-out images at most."""
    features: str | None = None
    """MODULE:FUNCTION for the Fréchet distance; pixels averaged to 8 × 8 if not given."""
    threads: int = 0
    """Threads to compute with; 0 uses all cores."""
    out: Path = Path("tokenizers")


def settings(arguments: Arguments, variant: str, seed: int) -> Experiment:
    """The configuration with the quantizer and the objective of a variant."""
    if variant not in VARIANTS:
        raise SystemExit(f"variants: no {variant!r}; choose from {', '.join(VARIANTS)}")
    data = {} if arguments.data is None else {"data.path": arguments.data}
    if arguments.held_out is not None:
        data["data.held_out"] = arguments.held_out
    experiment = load_experiment(arguments.config, data)
    own = experiment.image_tokenizer
    # Not all variants can be compiled, so none is.
    limits = {
        "minutes": arguments.minutes,
        "steps": arguments.steps,
        "seed": seed,
        "compile": "off",
    }
    shared = {
        "downsampling": own.downsampling,
        "autoencoder": {"width": own.autoencoder.width, "blocks": own.autoencoder.blocks},
        "objective": {"foreground": own.objective.foreground},
        "training": {**own.training.model_dump(), **limits},
    }
    config = ImageTokenizerConfig.model_validate({**shared, **VARIANTS[variant]})
    return experiment.model_copy(update={"image_tokenizer": config})


def trained(
    experiment: Experiment, store: Store, unseen: Store, folder: Path
) -> tuple[ImageTokenizer, int]:
    """The averaged model after training as the stage trains it, and how many steps that were.

    The small network of VQGAN's perceptual loss is trained before its minutes begin.
    """
    run = RunFolder.create(folder, experiment)
    captions = [text for own in store.captions for text in own]
    run.save_captions(CaptionTokenizer.from_config(experiment.captions, captions))
    context = StageContext(run, resume=False)
    context.store = store
    config = experiment.image_tokenizer
    torch.manual_seed(config.training.seed)
    model = build_image_tokenizer(config, experiment.data.image_size)
    objective = ImageTokenizerObjective(model, config, perceptual_features(context, config))
    batches = context.image_batches(config.training, dropout=False)
    # VQGAN's discriminator backs off at previews, of images that do not train.
    shown = reconstruction_previews(objective, run, unseen, experiment.data, context.device)
    files = StageFiles(run, "image_tokenizer")
    train(objective, batches, config.training, files, resume=False, preview=shown)
    steps = [r["step"] for r in run.metrics() if r["stage"] == "image_tokenizer"]
    return frozen(load_image_tokenizer(run)), max(steps)


def use_of_codes(model: ImageTokenizer, images: Tensor) -> tuple[float, float]:
    """Share of codes that occur in the images and their perplexity, means over the factors."""
    _, codes = reconstruct(model, images, torch.device("cpu"))
    digits = split_code(codes.flatten(), model.factors)
    counts = [
        np.bincount(own.numpy(), minlength=count)
        for own, count in zip(digits, model.factors, strict=True)
    ]
    used = [float((own > 0).mean()) for own in counts]
    return float(np.mean(used)), float(np.mean([perplexity(own) for own in counts]))


def slug(variant: str) -> str:
    """The variant's name as a folder's."""
    return "".join(letter if letter.isalnum() else "-" for letter in variant)


def table_of(results: Sequence[dict[str, Any]], floor: float, note: str) -> Table:
    """A row for each variant: means over seeds ± their standard deviation."""
    rows = []
    for variant in dict.fromkeys(result["variant"] for result in results):
        own = [result for result in results if result["variant"] == variant]
        cells = [variant]
        for name, digits in COLUMNS.items():
            values = np.array([result[name] for result in own], dtype=float)
            spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.{digits}f}{spread}")
        rows.append(cells)
    rows.append(["real images", "", "", f"{floor:.{COLUMNS['frechet_distance']}f}", "", "", ""])
    return Table("", ["variant", *COLUMNS], rows, note)


def main(arguments: Arguments) -> None:
    """Train, measure, print and write."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    features: Features = pixel_features(8)
    if arguments.features is not None:
        features = local_features(arguments.features)
    data = settings(arguments, arguments.variants[0], 0).data
    store, held_out = (
        prepare(data, split, arguments.out / "images") for split in ("train", "validation")
    )
    images = load_images(
        held_out, np.arange(min(len(held_out), arguments.max_examples)), data, None
    )
    rows = np.random.default_rng(0).permutation(len(store))
    # Ten thousand images hold every code that is in use.
    known = load_images(store, rows[:10_000], data, None)
    # As many real images that no one decoded: what the distance would be without a loss.
    floor = frechet_distance(features(images), features(known[: len(images)]))
    results, shown = [], {"original": images[:8]}
    for seed in arguments.seeds:
        for variant in arguments.variants:
            experiment = settings(arguments, variant, seed)
            folder = arguments.out / f"{slug(variant)}-{seed}"
            model, steps = trained(experiment, store, held_out, folder)
            device = torch.device("cpu")
            decoded, codes = reconstruct(model, images, device)
            again = encode_again(model.encode, decoded, device)
            part = measure_reconstructions(images, decoded, codes, again, model.factors, features)
            usage, spread = use_of_codes(model, known)
            used = {
                "usage": usage,
                "perplexity": spread,
                "usage_held_out": part.figures["code_usage"],
            }
            weights = sum(p.numel() for p in model.parameters())
            own = {"variant": variant, "seed": seed, "steps": steps, "weights": weights}
            results.append(part.figures | used | own)
            shown.setdefault(variant, decoded[:8])
            print(json.dumps(results[-1]), flush=True)
    limit = f"{arguments.steps} steps"
    if arguments.minutes is not None:
        limit = f"{arguments.minutes:g} min"
    note = (
        f"{len(images):,} held-out images, 512 codes a factor, {limit} each, seeds "
        f"{' '.join(map(str, arguments.seeds))}; ± one standard deviation. Usage and perplexity "
        f"over {len(known):,} training images. Fréchet distance over "
        f"{features.name}; real images: of as many training images."
    )
    table = table_of(results, floor, note)
    print(f"\n{table}")
    figures = {"settings": asdict(arguments), "real_against_real": floor, "results": results}
    text = json.dumps(figures, indent=1, default=str) + "\n"
    (arguments.out / "figures.json").write_text(text, encoding="utf-8")
    columns = list(shown)
    tiles = [to_images(torch.stack(row)) for row in zip(*shown.values(), strict=True)]
    sheet = contact_sheet(
        [tile for row in tiles for tile in row], columns * len(tiles), columns=len(columns), scale=2
    )
    save_png(sheet, arguments.out / "sheet.png")
    print(f"{arguments.out / 'figures.json'}\n{arguments.out / 'sheet.png'}")


if __name__ == "__main__":
    main(tyro.cli(Arguments))

"""Ablations of the CLIP that ranks: train each variant for the same time and let it rank.

    python -m benchmarks.clip_choices RUN [--minutes 3] [--seeds 0 1 2] [--out result.json]

RUN is a complete run on synthetic scenes. Its transformer samples the candidates of unseen captions
once, and they are judged once by rule; then every variant of its CLIP chooses among the same. What
counts is the share of the distance between no ranking and the oracle that its choice closes.
`--beside` adds the results of earlier calls to the table.
"""

import random
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from benchmarks.leave_one_out import check_names, earlier, mean, spread
from dalle_mini_impl.cli.output import write_json
from dalle_mini_impl.data.augment import load_images
from dalle_mini_impl.data.negatives import hard_negatives, wrong_captions
from dalle_mini_impl.evaluation.suites.core import SPLITS
from dalle_mini_impl.evaluation.suites.shapes import ShapesPrompt, scene_prompts
from dalle_mini_impl.images import to_images
from dalle_mini_impl.models.clip import Clip
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.retrieval.encoder import RunClip
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.loading import frozen, load_image_tokenizer
from dalle_mini_impl.training.context import StageContext
from dalle_mini_impl.training.loop import train
from dalle_mini_impl.training.objectives.clip import ClipObjective
from dalle_mini_impl.training.stage_files import StageFiles


class NoPositions(nn.Module):
    """Replaces the layer that keeps positions: returns zeros."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), 64, *x.shape[2:])


def pool_without_positions(clip: Clip) -> None:
    """Leave only the mean over positions, as a global average pool."""
    clip.image.add_module("reduce", NoPositions())


@dataclass(frozen=True)
class Variant:
    """What differs from the run's own configuration."""

    config: dict[str, Any] = field(default_factory=dict)
    change: Callable[[Clip], None] | None = None


VARIANTS = {
    "full": Variant(),
    "no hard negatives": Variant({"hard_negatives": 0}),
    "three hard negatives": Variant({"hard_negatives": 3}),
    "no positions in the pool": Variant(change=pool_without_positions),
    "no reconstructions": Variant({"reconstructions": 0.0}),
    "SigLIP's loss": Variant({"loss": "siglip"}),
}


@dataclass(frozen=True)
class Candidates:
    """What the run's transformer sampled for some captions: pixels, and whether all claims hold."""

    prompts: list[ShapesPrompt]
    pixels: list[Tensor]
    right: list[list[bool]]


@dataclass(frozen=True)
class Trained:
    """Results of one training of one variant, as shares."""

    seed: int
    steps: int
    hard: float
    """Unseen images whose caption beats one with an attribute exchanged."""
    chosen: dict[str, float]
    """All claims right by split: no ranking, CLIP's choice, the oracle's."""


@torch.inference_mode()
def sample_candidates(model: TextToImage, run: RunFolder, each: int, count: int) -> Candidates:
    """`count` candidates for `each` captions of one, two and three objects and each split."""
    scenes = run.experiment.data.shapes
    prompts = [
        prompt
        for objects in range(1, scenes.max_objects + 1)
        for split in SPLITS
        for prompt in scene_prompts(scenes, split, objects, each)
    ]
    pixels, right = [], []
    for at, prompt in enumerate(prompts):
        ids = torch.from_numpy(model.captions.encode([prompt.caption]))
        seeds = [1024 * at + number for number in range(count)]
        codes = model.code_sampler(ids, seeds, model.sampling)
        pixels.append(model.image_tokenizer.decode(codes))
        truths = [prompt.judge(np.asarray(image)).correct for image in to_images(pixels[-1])]
        right.append([all(truth.values()) for truth in truths])
    return Candidates(prompts, pixels, right)


def train_clip(
    context: StageContext, variant: Variant, seed: int, minutes: float
) -> tuple[Clip, int]:
    """One variant after `minutes`, and its steps."""
    own = context.experiment.clip
    fresh = {"seed": seed, "minutes": minutes, "steps": 10**6, "compile": "off"}
    training = own.training.model_copy(update=fresh)
    config = own.model_copy(update={**variant.config, "training": training})
    tokenizer = frozen(load_image_tokenizer(context.run), context.device)
    store, held_out = context.store, context.experiment.data.held_out_captions
    batches = context.image_batches(
        training,
        dropout=True,
        negative=hard_negatives(store.captions, store.attributes, "train", held_out),
        negatives=config.hard_negatives,
    )
    torch.manual_seed(seed)
    words = context.vocabulary
    model = Clip(config, words.vocabulary_size, words.context, context.experiment.data.image_size)
    if variant.change is not None:
        variant.change(model)
    objective = ClipObjective(
        model, config, lambda images: tokenizer.decode(tokenizer.encode(images))
    )
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run", context.experiment)
        train(objective, batches, training, StageFiles(run, "clip"), resume=False)
        run.load_weights("clip", model)
        steps = max(record["step"] for record in run.metrics())
    return frozen(model), steps


def hard_accuracy(context: StageContext, clip: RunClip, count: int) -> float:
    """Share of unseen images whose own caption beats one with an attribute exchanged."""
    store = context.split("validation")
    rows = np.arange(min(count, len(store)), dtype=np.int64)
    encode = context.vocabulary.encode
    held_out_captions = context.experiment.data.held_out_captions
    negative = hard_negatives(store.captions, store.attributes, "validation", held_out_captions)
    texts, _ = wrong_captions(
        negative,
        [(row, 0) for row in rows.tolist()],
        [random.Random(f"0/{row}") for row in rows],
        encode,
        lambda row: encode(store.captions[row]),
    )
    found = [at for at, text in enumerate(texts) if text]
    images = clip.encode_images(load_images(store, rows[found], context.experiment.data, None))
    own = clip.encode_texts([store.captions[rows[at]][0] for at in found])
    wrong = clip.encode_texts([texts[at] for at in found])
    return float(((images * own).sum(1) > (images * wrong).sum(1)).float().mean())


def choose(clip: RunClip, candidates: Candidates) -> dict[str, float]:
    """All claims right in each split: the first candidate, the one CLIP takes, any."""
    picked: dict[str, list[bool]] = {}
    for prompt, pixels, right in zip(
        candidates.prompts, candidates.pixels, candidates.right, strict=True
    ):
        scores = clip.encode_images(pixels) @ clip.encode_texts([prompt.caption])[0]
        choices = {"none": right[0], "clip": right[int(scores.argmax())], "oracle": any(right)}
        for by, held in choices.items():
            picked.setdefault(f"{prompt.split} {by}", []).append(held)
    return {name: sum(held) / len(held) for name, held in picked.items()}


def closed(chosen: dict[str, float], split: str) -> float:
    """Share of the way from no ranking to the oracle; not a number where there is none."""
    none, own, best = (chosen[f"{split} {by}"] for by in ("none", "clip", "oracle"))
    return (own - none) / (best - none) if best > none else float("nan")


def table(trained: dict[str, list[Trained]]) -> list[str]:
    """Markdown: a line per variant with means over the seeds."""
    first = next(iter(trained.values()))[0].chosen
    bounds = [
        f"{split}: {first[f'{split} none']:.1%} unranked, "
        f"{first[f'{split} oracle']:.1%} by the oracle"
        for split in SPLITS
    ]
    lines = ["; ".join(bounds), "", "| | steps | caption over its near miss |", "|---|---|---|"]
    for split in SPLITS:
        lines[2] += f" best by CLIP, {split} | distance closed, {split} |"
        lines[3] += "---|---|"
    for name, runs in trained.items():
        cells = [name, f"{mean([own.steps for own in runs]):.0f}"]
        cells.append(f"{spread([100 * own.hard for own in runs], 1)} %")
        for split in SPLITS:
            cells.append(f"{spread([100 * own.chosen[f'{split} clip'] for own in runs], 1)} %")
            cells.append(f"{spread([100 * closed(own.chosen, split) for own in runs], 0)} %")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(
    run: Annotated[Path, tyro.conf.Positional],
    minutes: float = 3.0,
    seeds: tuple[int, ...] = (0,),
    prompts: int = 40,
    candidates: int = 16,
    images: int = 1000,
    variants: tuple[str, ...] = tuple(VARIANTS),
    beside: tuple[Path, ...] = (),
    threads: int = 0,
    out: Path | None = None,
) -> None:
    """Train every variant of a run's CLIP and let it choose among the same candidates.

    Args:
        run: a complete run on synthetic scenes.
        minutes: of each training.
        seeds: one training of every variant for each.
        prompts: captions for each number of objects and split.
        candidates: images to choose from for each caption.
        images: unseen images to tell near misses on.
        variants: some of the variants.
        beside: results of earlier calls, equally long, to add to the table.
        threads: threads to compute with; 0 uses all cores.
        out: where the figures are written as JSON.
    """
    check_names(variants, VARIANTS)
    if threads:
        torch.set_num_threads(threads)
    folder = RunFolder.open(run)
    context = StageContext(folder)
    trained: dict[str, list[Trained]] = earlier(
        beside, "minutes", minutes, lambda own: Trained(**own)
    )
    sampled = sample_candidates(
        TextToImage.from_pretrained(folder, "cpu"), folder, prompts, candidates
    )
    for seed in seeds:
        for name in variants:
            model, steps = train_clip(context, VARIANTS[name], seed, minutes)
            clip = RunClip(model, context.vocabulary)
            result = Trained(
                seed, steps, hard_accuracy(context, clip, images), choose(clip, sampled)
            )
            trained.setdefault(name, []).append(result)
            print(f"seed {seed}: {name}: {asdict(result)}", flush=True)
            if out is not None:
                settings = {"run": str(run), "minutes": minutes, "prompts": prompts}
                record = {key: [asdict(each) for each in own] for key, own in trained.items()}
                write_json(out, settings | {"trained": record})
    print("\n".join(table(trained)))


if __name__ == "__main__":
    tyro.cli(main)

"""DALLE-pytorch beside the demo: the same scenes, captions, minutes and judge.

    pip install --no-deps --requirement benchmarks/requirements.txt
    python -m benchmarks.dalle_pytorch_shapes --out dalle_pytorch

Trains its dVAE, transformer and CLIP as large as those of the configuration and for the minutes of
its stages, on the same images and caption ids; samples captions of unseen scenes, seen and held
out; judges every image by rule and prints the suite's tables. Writes figures.json and sheet.png.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor, nn

from benchmarks import dalle_pytorch_peer as peer
from dalle_mini_impl.captions import CaptionTokenizer
from dalle_mini_impl.data.batches import BatchOrder, ImageBatches
from dalle_mini_impl.data.caption_table import CaptionTable
from dalle_mini_impl.data.preparation import prepare
from dalle_mini_impl.data.store import Store
from dalle_mini_impl.evaluation.report.shapes_tables import LAYOUT
from dalle_mini_impl.evaluation.report.suite_tables import (
    Scores,
    best_of_table,
    kinds_of_claim_table,
    reconstruction_table,
)
from dalle_mini_impl.evaluation.suites.core import SPLITS, STRICT, Outcome, judge_samples
from dalle_mini_impl.evaluation.suites.counting import count_cells
from dalle_mini_impl.evaluation.suites.reconstructions import judge_reconstructions
from dalle_mini_impl.evaluation.suites.shapes import ShapesPrompt, scene_prompts, shapes_originals
from dalle_mini_impl.experiment import Experiment, load_experiment
from dalle_mini_impl.images import contact_sheet, save_png, to_images
from dalle_mini_impl.models.clip import Clip
from dalle_mini_impl.models.dalle import Dalle
from dalle_mini_impl.models.tokenizers.image_tokenizer import build_image_tokenizer
from dalle_mini_impl.sampling.samples import Samples

GUIDANCE = 1.0


@dataclass(frozen=True)
class Arguments:
    """Train DALLE-pytorch on the shapes collection and judge it."""

    config: Path = Path("configs/shapes.yaml")
    """What it is compared with: data, captions, sizes, minutes and batch sizes."""
    out: Path = Path("dalle_pytorch")
    """Folder for the images' cache, figures.json and sheet.png."""
    minutes: tuple[float, float, float] | None = None
    """Of dVAE, transformer and CLIP; the configuration's own if not given."""
    prompts: int = 100
    """Captions for each number of objects and split."""
    objects: tuple[int, ...] = (1, 2)
    codes: int = 512
    """Entries of its codebook, where this project's codes have factors and many combinations."""
    candidates: int = 16
    """Images for each caption, among which its CLIP chooses."""
    top: float = 0.9
    """Its `filter_thres`: the share of logits that is cut away; 0.9 in its generate.py."""
    batch_size: int = 128
    """Images sampled at a time."""
    threads: int = 0
    """Threads to compute with; 0 uses all cores."""
    seed: int = 0


class PeerTokenizer:
    """Its dVAE as an image tokenizer of this project."""

    def __init__(self, vae: Any) -> None:
        self.vae, self.image_size = vae, vae.image_size

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        return self.vae.get_codebook_indices(images)

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        return peer.unnormalized(self.vae.decode(codes))


class Comparison:
    """The configuration's side: data, captions, and how large its models are."""

    def __init__(self, experiment: Experiment, store: Store) -> None:
        self.experiment, self.store = experiment, store
        texts = [text for own in store.captions for text in own]
        self.vocabulary = CaptionTokenizer.from_config(experiment.captions, texts)
        self.table = CaptionTable(store.captions, self.vocabulary)

    def models(self) -> dict[str, nn.Module]:
        """This project's models, untrained, to be counted."""
        experiment, words = self.experiment, self.vocabulary
        size = experiment.data.image_size
        tokenizer = build_image_tokenizer(experiment.image_tokenizer, size)
        text = (words.vocabulary_size, words.context)
        return {
            "image_tokenizer": tokenizer,
            "transformer": Dalle(
                experiment.transformer,
                *text,
                tokenizer.code_count,
                tokenizer.grid,
                tokenizer.factors,
            ),
            "clip": Clip(experiment.clip, *text, size),
        }

    def images(self, stage: str) -> ImageBatches:
        """The batches that the stage of this project sees."""
        training = getattr(self.experiment, stage).training
        data = self.experiment.data
        order = BatchOrder(training.batch_size, training.seed)
        return ImageBatches(self.store, self.table, data, order)

    def codes(self, codes: Tensor) -> Callable[[int], tuple[Tensor, Tensor]]:
        """Caption ids and codes of a step."""
        training = self.experiment.transformer.training
        order = BatchOrder(training.batch_size, training.seed)

        def batch(step: int) -> tuple[Tensor, Tensor]:
            rows = order.indices(len(codes), step)
            return self.table.random_ids(rows, order.rng(step)), codes[rows]

        return batch


def train_all(
    side: Comparison, minutes: tuple[float, float, float], codes: int, seed: int
) -> tuple[Any, Any, dict[str, peer.Trained]]:
    """Its transformer (which holds the dVAE) and CLIP, with what training them was."""
    models = side.models()
    sizes = {name: peer.weights(model) for name, model in models.items()}
    experiment, words = side.experiment, side.vocabulary
    cell, size = experiment.image_tokenizer.downsampling, experiment.data.image_size
    trained = {}

    torch.manual_seed(seed)
    code_count = min(models["image_tokenizer"].code_count, codes)
    vae = peer.build_vae(sizes["image_tokenizer"], size, cell, code_count)
    print(f"dVAE: {peer.weights(vae):,} weights, ours {sizes['image_tokenizer']:,}", flush=True)
    temperature = 1.0

    def vae_loss(batch: Any, step: int) -> Tensor:
        nonlocal temperature
        loss = vae(batch.images, return_loss=True, temp=temperature)
        temperature = peer.vae_temperature(temperature, step)
        return loss

    batches = side.images("image_tokenizer")
    trained["image_tokenizer"] = peer.train(
        vae, batches, vae_loss, minutes[0], peer.VAE_RATE, decay=0.98
    )

    encoded = torch.cat([PeerTokenizer(vae).encode(part) for part in plain_images(side.store)])
    transformer = experiment.transformer
    shape = (words.vocabulary_size, words.context, transformer.depth, transformer.heads)
    dalle = peer.build_dalle(sizes["transformer"], vae, *shape)
    print(f"DALLE: {peer.weights(dalle):,} weights, ours {sizes['transformer']:,}", flush=True)
    trained["transformer"] = peer.train(
        dalle,
        side.codes(encoded),
        lambda batch, step: dalle(batch[0], batch[1], return_loss=True),
        minutes[1],
        peer.DALLE_RATE,
        max_grad_norm=0.5,
    )

    depth = experiment.clip.text_depth
    clip = peer.build_clip(sizes["clip"], words.vocabulary_size, words.context, size, depth)
    print(f"CLIP: {peer.weights(clip):,} weights, ours {sizes['clip']:,}", flush=True)

    def clip_loss(batch: Any, step: int) -> Tensor:
        ids = batch.captions
        return clip(ids, batch.images, text_mask=ids != 0, return_loss=True)

    trained["clip"] = peer.train(clip, side.images("clip"), clip_loss, minutes[2], peer.CLIP_RATE)
    return dalle, clip, trained


def plain_images(store: Store) -> Iterator[Tensor]:
    """All images in [0, 1], a few at a time."""
    for start in range(0, len(store), 256):
        rows = torch.from_numpy(np.array(store.images[start : start + 256]))
        yield rows.permute(0, 3, 1, 2).float() / 255


def outcomes_of(
    dalle: Any,
    clip: Any,
    words: CaptionTokenizer,
    prompts: list[ShapesPrompt],
    arguments: Arguments,
) -> tuple[list[Outcome], list[Image.Image]]:
    """Every prompt sampled and judged, and the images that its CLIP chose first."""
    count = arguments.candidates
    together = max(1, arguments.batch_size // count)
    outcomes, chosen = [], []
    for start in range(0, len(prompts), together):
        part = prompts[start : start + together]
        ids = torch.from_numpy(words.encode([prompt.caption for prompt in part]))
        rows = ids.repeat_interleave(count, dim=0)
        pixels = peer.sample(dalle, rows, arguments.seed + start, arguments.top)
        with torch.inference_mode():
            scores = clip(rows, pixels, text_mask=rows != 0)
        images = to_images(pixels)
        for at, prompt in enumerate(part):
            own = slice(at * count, (at + 1) * count)
            none = torch.zeros(count)
            samples = Samples(
                prompt.caption, tuple(range(own.start, own.stop)), pixels[own],
                torch.zeros(count, 0, dtype=torch.long), none, none, scores[own],
            )  # fmt: skip
            counts = sorted({1, count})
            outcome = judge_samples(prompt, GUIDANCE, samples, counts, "clip")
            outcomes.append(outcome)
            chosen.append(images[own][outcome.chosen[count, "clip"]])
        print(f"  sampled {len(outcomes)} of {len(prompts)} captions", flush=True)
    return outcomes, chosen


def main(arguments: Arguments) -> None:
    """Train, sample, judge, print and write."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    experiment = load_experiment(arguments.config)
    data = experiment.data
    side = Comparison(experiment, prepare(data, "train", arguments.out / "images"))
    stages = (experiment.image_tokenizer, experiment.transformer, experiment.clip)
    minutes = arguments.minutes or tuple(stage.training.minutes or 1.0 for stage in stages)
    dalle, clip, trained = train_all(side, minutes, arguments.codes, arguments.seed)
    prompts = [
        prompt
        for objects in arguments.objects
        for split in SPLITS
        for prompt in scene_prompts(data.shapes, split, objects, arguments.prompts, arguments.seed)
    ]
    outcomes, chosen = outcomes_of(dalle, clip, side.vocabulary, prompts, arguments)
    cells = count_cells(outcomes, sorted({1, arguments.candidates}))
    cells = [cell for cell in cells if cell.ranking in ("none", "clip", "oracle")]
    scores = Scores(cells, "clip")
    tokenizer = PeerTokenizer(dalle.vae)
    originals = shapes_originals(data.shapes, arguments.prompts, tokenizer.image_size)
    reconstructions = judge_reconstructions(
        originals, lambda pixels: tokenizer.decode(tokenizer.encode(pixels))
    )
    for table in (
        best_of_table(scores, GUIDANCE, LAYOUT),
        best_of_table(scores, GUIDANCE, LAYOUT, STRICT),
        kinds_of_claim_table(scores, GUIDANCE, LAYOUT),
        reconstruction_table(reconstructions),
    ):
        print(f"\n{table}")
    figures = {
        "settings": {**asdict(arguments), "minutes": minutes},
        "threads": torch.get_num_threads(),
        "trained": {name: asdict(result) for name, result in trained.items()},
        "scores": [cell.to_dict() for cell in cells],
        "reconstructions": [asdict(count) for count in reconstructions],
        "prompts": [
            {
                "caption": prompt.caption,
                "split": prompt.split,
                "objects": prompt.objects,
                "wrong": [[k for k, held in t.items() if not held] for t in outcome.correct],
                "clean": outcome.clean,
                "clip_score": outcome.clip_scores,
            }
            for outcome, prompt in zip(outcomes, prompts, strict=True)
        ],
    }
    text = json.dumps(figures, indent=1, default=str) + "\n"
    (arguments.out / "figures.json").write_text(text, encoding="utf-8")
    step = max(1, len(chosen) // 24)
    captions = [prompt.caption for prompt in prompts[::step]]
    sheet = contact_sheet(chosen[::step], captions, columns=8, scale=2)
    save_png(sheet, arguments.out / "sheet.png")
    print(f"\n{arguments.out / 'figures.json'}\n{arguments.out / 'sheet.png'}")


if __name__ == "__main__":
    main(tyro.cli(Arguments))

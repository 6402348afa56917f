"""A run measured on held-out images of its own collection, model by model."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.data.augment import load_images
from dalle_mini_impl.data.negatives import hard_negatives
from dalle_mini_impl.data.store import Store, prepare
from dalle_mini_impl.evaluation.measures.agreement import (
    measure_calibration,
    measure_hard_negatives,
    measure_retrieval,
    wrong_captions,
)
from dalle_mini_impl.evaluation.measures.features import Features, clip_features, pixel_features
from dalle_mini_impl.evaluation.measures.likelihood import measure_likelihood
from dalle_mini_impl.evaluation.measures.reconstruction import measure_reconstructions, reconstruct
from dalle_mini_impl.evaluation.measures.samples import (
    NEIGHBORS,
    measure_distribution,
    measure_memorization,
    measure_reranking,
    measure_scores,
)
from dalle_mini_impl.evaluation.report.page import ReportPart
from dalle_mini_impl.evaluation.suites.core import seeds_apart
from dalle_mini_impl.images import to_uint8
from dalle_mini_impl.models.clip import Clip
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.loading import frozen, load_clip, load_image_tokenizer
from dalle_mini_impl.sampling.samples import Samples

ROWS = 128


@dataclass(frozen=True)
class CollectionSettings:
    """How much is measured, and how it is sampled."""

    split: Literal["validation", "held_out"] = "validation"
    guidance: float = 1.0
    candidates: tuple[int, ...] = (1, 4, 16)
    """Best of how many, for reranking."""
    max_examples: int = 512
    """Held-out images at most, and samples; a sixteenth of the captions is reranked."""
    train_examples: int = 20_000
    """Training images at most that samples are compared with."""
    seed: int = 0
    batch_size: int = 128


class HeldOut:
    """Held-out images with one caption each, chosen at random from a seed."""

    def __init__(self, run: RunFolder, settings: CollectionSettings, report: Callable) -> None:
        data = run.experiment.data
        store = prepare(data, settings.split, run.cache / "images", report)
        if len(store) <= NEIGHBORS:
            raise ConfigError(
                f"{data.path}: {len(store)} {settings.split} images, too few to measure on; "
                "train a run with a larger data.held_out, or name the other --split"
            )
        self.store, self.split, self.seed = store, settings.split, settings.seed
        self.rows = _random_rows(store, settings.max_examples, settings.seed)
        rng = random.Random(settings.seed)
        self.numbers = [rng.randrange(len(store.captions[row])) for row in self.rows]
        self.captions = [
            store.captions[row][number] for row, number in zip(self.rows, self.numbers, strict=True)
        ]
        self.images = _images(store, self.rows, run)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def same(self) -> Tensor:
        """Which images have equal captions, `n n`."""
        numbers: dict[str, int] = {}
        ids = torch.tensor([numbers.setdefault(text, len(numbers)) for text in self.captions])
        return ids[:, None] == ids[None]


def evaluate_collection(
    run: RunFolder,
    settings: CollectionSettings,
    device: torch.device,
    features: Features | None = None,
    report: Callable[[str], None] = print,
) -> list[ReportPart]:
    """Measure the models that the run has; parts whose models are missing are left out.

    features: for comparing sets of images; by default the run's CLIP, or plain pixels without
    one. Raises RunError where the run has no image tokenizer.
    """
    tokenizer = frozen(load_image_tokenizer(run), device)
    held_out = HeldOut(run, settings, report)
    clip: Clip | None = None
    if run.has_weights("clip"):
        clip = frozen(load_clip(run, run.captions()), device)
    if features is None:
        features = clip_features(clip, device) if clip is not None else pixel_features(8)
    report(f"image tokenizer: {len(held_out):,} {settings.split} images")
    decoded, codes = reconstruct(tokenizer, held_out.images, device)
    parts = [measure_reconstructions(held_out.images, decoded, codes, tokenizer.factors, features)]
    if run.has_weights("dalle"):
        model = TextToImage.from_pretrained(run, device)
        report("transformer: loss by caption")
        ids = torch.from_numpy(model.captions.encode(held_out.captions))
        parts.append(
            measure_likelihood(
                model.dalle.log_likelihood,
                held_out.captions,
                ids,
                codes,
                tokenizer.code_count,
                device,
            )
        )
        report(f"samples: {len(held_out):,} at guidance {settings.guidance:g}")
        samples = _sample(model, held_out.captions, settings, candidates=1)
        store = prepare(run.experiment.data, "train", run.cache / "images", report)
        train = _images(store, _random_rows(store, settings.train_examples, settings.seed), run)
        parts += _compare_samples(samples, held_out, decoded, train, features)
        if max(settings.candidates) > 1:
            parts.append(_reranking(model, held_out, settings, features, report))
    if clip is not None:
        report("CLIP: retrieval, hard negatives, calibration")
        parts += _clip_parts(run, clip, held_out, device)
    return parts


def _sample(
    model: TextToImage, captions: Sequence[str], settings: CollectionSettings, candidates: int
) -> list[Samples]:
    """Candidates of each caption; no two captions share noise."""
    config = model.sampling.model_copy(
        update={
            "guidance": settings.guidance,
            "batch_size": settings.batch_size,
            "candidates": candidates,
        }
    )
    seeds = seeds_apart(settings.seed, len(captions), max(settings.candidates))
    return list(model.sample(captions, seeds, config))


def _compare_samples(
    samples: Sequence[Samples],
    held_out: HeldOut,
    decoded: Float[Tensor, "n 3 h w"],
    train: Float[Tensor, "m 3 h w"],
    features: Features,
) -> list[ReportPart]:
    """One sample of each held-out caption against real images."""
    parts = [measure_scores(samples)]
    sampled = torch.cat([_rounded(own.pixels) for own in samples])
    # The distance shrinks with the number of images, so all sets have the same.
    n = min(len(sampled), len(train))
    if n > NEIGHBORS:
        real = held_out.images[:n]
        parts.append(measure_distribution(sampled[:n], real, train[:n], features))
    pixels = pixel_features(16)
    return [*parts, measure_memorization(sampled, train, held_out.images, decoded, pixels)]


def _reranking(
    model: TextToImage,
    held_out: HeldOut,
    settings: CollectionSettings,
    features: Features,
    report: Callable[[str], None],
) -> ReportPart:
    """What choosing among the candidates of some captions gains."""
    count = max(1, min(len(held_out), max(16, len(held_out) // 16)))
    most = max(settings.candidates)
    report(f"reranking: {count:,} captions, {most} candidates each")
    samples = _sample(model, held_out.captions[:count], settings, most)
    likeness = torch.stack(
        [
            F.cosine_similarity(features(_rounded(own.pixels)), target[None], dim=1)
            for own, target in zip(samples, features(held_out.images[:count]), strict=True)
        ]
    )
    return measure_reranking(samples, likeness, settings.candidates, features)


@torch.inference_mode()
def _clip_parts(
    run: RunFolder, clip: Clip, held_out: HeldOut, device: torch.device
) -> list[ReportPart]:
    """How well CLIP matches held-out images and captions."""
    captions, store = run.captions(), held_out.store

    def encode(texts: Sequence[str]) -> Float[Tensor, "n e"]:
        ids: Int[Tensor, "n t"] = torch.from_numpy(captions.encode(texts))
        return torch.cat([clip.encode_text(part.to(device)).cpu() for part in ids.split(ROWS)])

    images = clip_features(clip, device)(held_out.images)
    texts = encode(held_out.captions)
    logits = clip.logit_scale.cpu() * images @ texts.T + clip.bias.cpu()
    parts = [measure_retrieval(images, texts, held_out.same)]
    held_out_captions = run.experiment.data.held_out_captions
    negative = hard_negatives(store.captions, store.attributes, held_out.split, held_out_captions)
    rows, wrong = wrong_captions(negative, held_out.numbers, held_out.rows, held_out.seed)
    if rows:
        parts.append(measure_hard_negatives(images[rows], texts[rows], encode(wrong)))
    config = run.experiment.clip
    batch = config.training.batch_size
    return [*parts, measure_calibration(logits, held_out.same, batch, config.loss)]


def _rounded(pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Pixels rounded to 8 bits as the collection's images are, on the CPU."""
    return torch.from_numpy(to_uint8(pixels)).permute(0, 3, 1, 2).contiguous().float() / 255


def _random_rows(store: Store, most: int, seed: int) -> list[int]:
    """At most `most` rows in a random order from the seed."""
    return np.random.default_rng(seed % 2**63).permutation(len(store))[:most].tolist()


def _images(store: Store, rows: Sequence[int], run: RunFolder) -> Float[Tensor, "n 3 h w"]:
    """Images of a store as the models see them, without augmentation."""
    return load_images(store, np.array(rows, np.int64), run.experiment.data, None)

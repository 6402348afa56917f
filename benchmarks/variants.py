"""One training of one variant of a transformer, and its results."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch._inductor.utils import fresh_cache

from dalle_mini_impl.captions import CaptionTokenizer
from dalle_mini_impl.data.augment import load_images
from dalle_mini_impl.data.batches import BatchOrder, CodeBatch, CodeBatches
from dalle_mini_impl.data.prefetch import prefetch
from dalle_mini_impl.evaluation.suites.core import SPLITS
from dalle_mini_impl.evaluation.suites.shapes import ShapesPrompt, scene_prompts
from dalle_mini_impl.images import to_images
from dalle_mini_impl.models.dalle import Dalle, TransformerConfig
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.loading import frozen, load_image_tokenizer
from dalle_mini_impl.sampling.config import SamplingConfig
from dalle_mini_impl.sampling.sampler import CodeSampler
from dalle_mini_impl.training.code_stage import codes_of
from dalle_mini_impl.training.compilation import Trial, compile_if_it_pays
from dalle_mini_impl.training.context import StageContext
from dalle_mini_impl.training.learner import Learner
from dalle_mini_impl.training.objectives.dalle import DalleObjective
from dalle_mini_impl.training.objectives.objective import to_device

MOST_OBJECTS = 2
"""Objects in the scenes that are sampled; three are too hard for so short a training."""


@dataclass(frozen=True)
class Variant:
    """What differs from the run's own configuration."""

    training: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Point:
    """Held-out image loss, in nats per code, after some wall seconds and steps."""

    seconds: float
    step: int
    loss: float


@dataclass(frozen=True)
class Setup:
    """What all variants share: batches by step and seed, and held-out data."""

    batches: CodeBatches
    vocabulary: CaptionTokenizer
    tokenizer: ImageTokenizer
    held_out: CodeBatch
    sampling: SamplingConfig
    prompts: list[ShapesPrompt]
    """Captions to sample, none where the collection has no judge."""


@dataclass(frozen=True)
class Trained:
    """One training of one variant."""

    seed: int
    points: list[Point]
    sampled: dict[str, float]
    """Share of captions all of whose claims hold, by group and split, one image each."""


def prepare(run: RunFolder, held_out: int, prompts: int) -> Setup:
    """The run's batches, its first `held_out` validation images, captions of unseen scenes.

    prompts: for each number of objects and split.
    """
    context = StageContext(run)
    tokenizer = frozen(load_image_tokenizer(run))
    training = context.experiment.transformer.training
    batches = CodeBatches(
        codes_of(context, tokenizer), context.table(False), BatchOrder(training.batch_size)
    )
    shown = context.split("validation")
    rows = torch.arange(min(held_out, len(shown))).numpy()
    with torch.no_grad():
        codes = tokenizer.encode(load_images(shown, rows, context.experiment.data, None))
    texts = [shown.captions[row][0] for row in rows]
    captions = torch.from_numpy(context.vocabulary.encode(texts))
    scenes = context.experiment.data.shapes
    synthetic = context.experiment.data.path == "shapes"
    asked = [
        prompt
        for objects in range(1, min(MOST_OBJECTS, scenes.max_objects) + 1)
        for split in SPLITS
        for prompt in scene_prompts(scenes, split, objects, prompts if synthetic else 0)
    ]
    unseen = CodeBatch(codes, captions)
    sampling = context.experiment.sampling
    return Setup(batches, context.vocabulary, tokenizer, unseen, sampling, asked)


@torch.no_grad()
def held_out_loss(model: Dalle, batch: CodeBatch, rows: int = 128) -> float:
    """Mean image loss in fp32, over parts of the batch that fit in memory."""
    parts = zip(batch.captions.split(rows), batch.codes.split(rows), strict=True)
    total = sum(float(model.log_likelihood(*part).sum()) for part in parts)
    return -total / batch.codes.numel()


@torch.no_grad()
def judged_samples(model: Dalle, setup: Setup) -> dict[str, float]:
    """Sample every caption once and judge it."""
    if not setup.prompts:
        return {}
    device = next(model.parameters()).device
    ids = torch.from_numpy(setup.vocabulary.encode([p.caption for p in setup.prompts]))
    sampler, truths = CodeSampler(model), []
    for numbers in torch.arange(len(ids)).split(setup.sampling.batch_size):
        codes = sampler(ids[numbers].to(device), numbers.tolist(), setup.sampling)
        images_of = to_images(setup.tokenizer.decode(codes.cpu()))
        for at, image in zip(numbers.tolist(), images_of, strict=True):
            truths.append(all(setup.prompts[at].judge(np.asarray(image)).correct.values()))
    groups: dict[str, list[bool]] = {}
    for prompt, truth in zip(setup.prompts, truths, strict=True):
        groups.setdefault(f"{prompt.objects} {prompt.split}", []).append(truth)
    return {name: sum(own) / len(own) for name, own in groups.items()}


def train_variant(
    setup: Setup,
    base: TransformerConfig,
    variant: Variant,
    seed: int,
    seconds: float,
    points: int,
) -> Trained:
    """Train one variant for `seconds`, compilation included, with losses at `points` moments.

    Schedules follow the clock after compilation, as under `minutes`. Evaluations stop the clock.
    """
    fresh = {"seed": seed, "minutes": seconds / 60, "steps": 10**9, "compile": "off"}
    training = base.training.model_copy(update=fresh | variant.training)
    config = base.model_copy(update={**variant.model, "training": training})
    torch.manual_seed(seed)
    torch.compiler.reset()
    sizes = (setup.vocabulary.vocabulary_size, setup.vocabulary.context)
    tokenizer = setup.tokenizer
    model = Dalle(config, *sizes, tokenizer.code_count, tokenizer.grid, tokenizer.factors)
    learner = Learner(DalleObjective(model, config), training, Accelerator(mixed_precision="no"))
    held_out = to_device(setup.held_out, learner.device)
    batches = CodeBatches(
        setup.batches.cache, setup.batches.table, BatchOrder(training.batch_size, seed)
    )
    started = time.monotonic()
    with fresh_cache():  # What an earlier training compiled is not given to this one.
        trial = Trial(lambda: to_device(batches(0), learner.device), 0, 0.0, time_left=seconds)
        compile_if_it_pays(learner, trial, time.monotonic, print)
    found: list[Point] = []
    paused, overhead = 0.0, time.monotonic() - started
    for step, batch in steps(batches):
        elapsed = time.monotonic() - started - paused
        while len(found) < points and elapsed >= seconds * (len(found) + 1) / points:
            began = time.monotonic()
            found.append(Point(elapsed, step, held_out_loss(averaged(learner), held_out)))
            paused += time.monotonic() - began
        if elapsed >= seconds:
            return Trained(seed, found, judged_samples(averaged(learner), setup))
        progress = max(0.0, elapsed - overhead) / max(1e-9, seconds - overhead)
        learner.compute_gradients(to_device(batch, learner.device), step, progress)
        learner.update(progress)
    raise AssertionError("batches never end")


def averaged(learner: Learner) -> Dalle:
    """The averaged model of a learner, in eval mode."""
    model = learner.ema.module
    assert isinstance(model, Dalle)
    return model


def steps(batches: CodeBatches) -> Iterator[tuple[int, CodeBatch]]:
    """Every batch with its number, made ahead in a thread."""
    return zip(count(), prefetch(batches, 0, 10**9), strict=False)

"""The validation images that a stage is measured on while it trains: the same ones each time."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.data.augment import load_images
from dalle_mini_impl.data.batches import CodeBatch, ImageBatch
from dalle_mini_impl.data.caption_table import CaptionTable
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer
from dalle_mini_impl.training.context import LEAST_VALIDATION, StageContext

COST = 0.01
"""Intended cost of all measurements, as a share of the training steps."""
LEAST, MOST = 32, 256
"""Validation images that are used in short runs and in long ones, where there are as many."""
MEASUREMENTS = 10
"""In short runs fewer images are used, so that there are about as many measurements as this."""
PASSES_OF_A_STEP = 3
"""A training step costs about three forward passes: one forward and two for the gradients."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out images for the measurements of one stage."""

    batches: Callable[[], Iterable[Any]]
    """Makes this process's batches, of which each process has equally many."""
    images: int
    """Images in the batches of all processes."""

    def interval(self, passes: float, step_images: int) -> int:
        """Steps between measurements, which then cost a share of about COST.

        passes: forward passes that an image takes. step_images: images in a training step of all
        processes. A count of steps, not a clock, so that a resumed run measures at the same steps.
        """
        return math.ceil(self.images * passes / (PASSES_OF_A_STEP * COST * step_images))


def held_out_images(context: StageContext, training: TrainingConfig) -> HeldOut | None:
    """Validation images with one caption each; None where there are too few."""
    rows = _rows(context, training)
    if not rows:
        return None
    captions = _captions(context, rows)
    store, data = context.validation, context.experiment.data

    def batches() -> Iterable[ImageBatch]:
        for of_batch, (ids, texts, groups) in zip(rows, captions, strict=True):
            images = load_images(store, of_batch, data, None)
            yield ImageBatch(images, ids, None, groups, texts)

    return HeldOut(batches, context.processes.num_processes * sum(map(len, rows)))


def held_out_codes(
    context: StageContext, training: TrainingConfig, tokenizer: ImageTokenizer
) -> HeldOut | None:
    """The codes of validation images with one caption each, as `held_out_images`."""
    images = held_out_images(context, training)
    if images is None:
        return None
    with torch.no_grad():
        found = [
            CodeBatch(tokenizer.encode(batch.images.to(context.device)).cpu(), batch.captions)
            for batch in images.batches()
        ]
    return HeldOut(lambda: found, images.images)


def _rows(context: StageContext, training: TrainingConfig) -> list[Int64[np.ndarray, "_"]]:
    """This process's validation images, batch by batch: a random part, always the same.

    Empty where there are too few.
    """
    order, available = context.order(training), len(context.validation)
    step_images = training.batch_size * order.world
    affordable = PASSES_OF_A_STEP * COST * step_images * training.steps / MEASUREMENTS
    count = min(available, MOST, max(LEAST, int(affordable))) // order.world
    if available < LEAST_VALIDATION or count == 0:
        return []
    shuffled = np.random.default_rng(training.seed % 2**63).permutation(available)
    own = shuffled[order.rank :: order.world][:count].astype(np.int64)
    return [own[at : at + order.batch_size] for at in range(0, count, order.batch_size)]


def _captions(
    context: StageContext, rows: list[Int64[np.ndarray, "_"]]
) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Ids of a random caption of each image, and what tells equal captions, batch by batch."""
    table = CaptionTable(context.validation.captions, context.vocabulary)
    rng = np.random.default_rng(0)
    found = []
    for of_batch in rows:
        numbers = table.choose(of_batch, rng)
        texts = torch.from_numpy(table.texts(of_batch, numbers))
        found.append((table.ids(of_batch, numbers, rng), texts, table.groups(of_batch)))
    return found

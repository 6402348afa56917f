"""Held-out images of a run's collection, and how much of them is measured."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.data.augment import load_images
from dalle_mini_impl.data.messages import counted
from dalle_mini_impl.data.store import Store, prepare
from dalle_mini_impl.evaluation.measures.samples import NEIGHBORS
from dalle_mini_impl.runs.folder import RunFolder


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
                f"{data.path}: {counted(len(store), f'{settings.split} image')}, too few to "
                "measure on; train a run with a larger data.held_out, or name the other --split"
            )
        self.store, self.split, self.seed = store, settings.split, settings.seed
        self.rows = random_rows(store, settings.max_examples, settings.seed)
        rng = random.Random(settings.seed)
        self.numbers = [rng.randrange(len(store.captions[row])) for row in self.rows]
        self.captions = [
            store.captions[row][number] for row, number in zip(self.rows, self.numbers, strict=True)
        ]
        self.images = images_of(store, self.rows, run)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def same(self) -> Tensor:
        """Which images have equal captions, `n n`."""
        numbers: dict[str, int] = {}
        ids = torch.tensor([numbers.setdefault(text, len(numbers)) for text in self.captions])
        return ids[:, None] == ids[None]


def random_rows(store: Store, most: int, seed: int) -> list[int]:
    """At most `most` rows in a random order from the seed."""
    return np.random.default_rng(seed % 2**63).permutation(len(store))[:most].tolist()


def images_of(store: Store, rows: Sequence[int], run: RunFolder) -> Float[Tensor, "n 3 h w"]:
    """Images of a store as the models see them, without augmentation."""
    return load_images(store, np.array(rows, np.int64), run.experiment.data, None)

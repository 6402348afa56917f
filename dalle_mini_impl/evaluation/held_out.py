"""Held-out images of a run's collection, and how much of them is measured."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.data.messages import counted
from dalle_mini_impl.data.negatives import hard_negatives, wrong_captions
from dalle_mini_impl.data.preparation import prepare
from dalle_mini_impl.data.store import Store
from dalle_mini_impl.evaluation.measures.features import StoredImages
from dalle_mini_impl.evaluation.measures.likelihood import caption_numbers
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
        self.run, self.store = run, store
        self.split, self.seed = settings.split, settings.seed
        self.rows = random_rows(store, settings.max_examples, settings.seed)
        rng = random.Random(settings.seed)
        self.numbers = [rng.randrange(len(store.captions[row])) for row in self.rows]
        self.captions = [
            store.captions[row][number] for row, number in zip(self.rows, self.numbers, strict=True)
        ]
        self.images = StoredImages(store, self.rows, data)[:]

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def ids(self) -> Int[Tensor, "n t"]:
        """The captions encoded."""
        return torch.from_numpy(self.run.captions().encode(self.captions))

    @cached_property
    def same(self) -> Bool[Tensor, "n n"]:
        """Which images have captions that are equal once encoded."""
        numbers = caption_numbers(self.ids)
        return numbers[:, None] == numbers[None]

    def wrong_captions(self, seed: int) -> tuple[list[int], list[str]]:
        """The rows for which a caption with a wrong attribute can be made, and these captions."""
        store, captions = self.store, self.run.captions()
        compositions = self.run.experiment.data.held_out_captions
        texts, _ = wrong_captions(
            hard_negatives(store.captions, store.attributes, self.split, compositions),
            list(zip(self.rows, self.numbers, strict=True)),
            [random.Random(f"{seed}/{row}") for row in self.rows],
            captions.encode,
            lambda image: captions.encode(store.captions[image]),
        )
        rows = [at for at, text in enumerate(texts) if text]
        return rows, [texts[at] for at in rows]


def random_rows(store: Store, most: int, seed: int) -> list[int]:
    """At most `most` rows in a random order from the seed."""
    return np.random.default_rng(seed % 2**63).permutation(len(store))[:most].tolist()

"""The data path: images prepared, batches made, and how long training waits for them."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import ours
from benchmarks.options import Session, Table, say
from benchmarks.shape import Shape
from benchmarks.timing import Contender, Row
from dalle_mini_impl.captions import CaptionsConfig, CaptionTokenizer
from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.data.batches import BatchOrder, CodeBatches, ImageBatches
from dalle_mini_impl.data.caption_table import CaptionTable
from dalle_mini_impl.data.codes import CodeCache, CodeKey
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.prefetch import prefetch
from dalle_mini_impl.data.preparation import prepare
from dalle_mini_impl.data.store import Store
from dalle_mini_impl.models.dalle import Dalle, TransformerConfig
from dalle_mini_impl.models.tokenizers.configs import ImageTokenizerConfig
from dalle_mini_impl.models.tokenizers.image_tokenizer import build_image_tokenizer
from dalle_mini_impl.training.objectives.dalle import DalleObjective
from dalle_mini_impl.training.objectives.image_tokenizer import ImageTokenizerObjective

NOTES = [
    "Preparing makes or decodes every image, resizes it and writes the store; several processes "
    "are used from 2,000 images on.",
    "Files: smooth random images, PNG and JPEG (quality 90).",
    "Waiting: the share of a training loop's time in which it has no batch, with batches made "
    "ahead in a thread.",
]


@dataclass(frozen=True)
class DataOptions:
    """The data path."""

    images: int = 4096
    """Images to prepare; several processes are used from 2,000 on."""
    image_size: int = 64
    """Side in pixels that they are prepared at."""
    file_size: int = 256
    """Side in pixels of the PNG and JPEG files."""
    batch: int = 32
    """Images in a batch."""
    steps: int = 40
    """Training steps over which waiting is measured."""
    workers: tuple[int, ...] = ()
    """Processes to prepare with; 1, 2, 4 … up to the threads where none are given."""


def run(options: DataOptions, session: Session) -> list[Table]:
    """The tables of preparing, batches and waiting."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared = preparing(options, session, folder)
        shapes = DataConfig(
            path="shapes", image_size=options.image_size, limit=options.images, workers=1
        )
        store = prepare(shapes, "train", folder / "shapes", report=_silent)
        tokenizer = CaptionTokenizer.from_config(CaptionsConfig(vocabulary="shapes"))
        table = CaptionTable(store.captions, tokenizer)
        order = BatchOrder(options.batch)
        images = ImageBatches(store, table, shapes, order)
        codes = CodeBatches(code_cache(store, session.common.shape, folder), table, order)
        batches = batch_rates(images, codes, options, session)
        waits = waiting(images, codes, tokenizer, options, session)
    return [
        Table("data-prepare", f"Preparing {options.images:,} images", prepared, NOTES[:2]),
        Table("data-batches", f"Making batches of {options.batch}", batches),
        Table("data-waiting", "Share of a training loop's time spent waiting", waits, NOTES[2:]),
    ]


def preparing(options: DataOptions, session: Session, folder: Path) -> list[Row]:
    """Images per second of `prepare`, by source and number of processes."""
    sources = {"shapes": "shapes"}
    for kind in ("png", "jpeg"):
        sources[kind.upper()] = str(write_images(folder / kind, kind, options))
    rows: list[Row] = []
    for label, path in sources.items():
        found = []
        for workers in options.workers or doublings(torch.get_num_threads()):
            config = DataConfig(
                path=path,
                image_size=options.image_size,
                limit=options.images,
                held_out=0,
                workers=workers,
            )
            name = f"{label}, {workers} process{'' if workers == 1 else 'es'}"
            found.append(Contender(name, _preparation(config, folder), ours=True))
        rows += session.measure(label, "uint8", found, options.images, "images/s")
    return rows


def batch_rates(
    images: ImageBatches, codes: CodeBatches, options: DataOptions, session: Session
) -> list[Row]:
    """Batches per second, made one after the other in this thread."""
    contenders = [
        Contender("ImageBatches", _in_turn(images), ours=True),
        Contender("CodeBatches", _in_turn(codes), ours=True),
    ]
    return session.measure(f"batches of {options.batch}", "-", contenders, 1, "batches/s")


def waiting(
    images: ImageBatches,
    codes: CodeBatches,
    tokenizer: CaptionTokenizer,
    options: DataOptions,
    session: Session,
) -> list[Row]:
    """Of the loop that trains an image tokenizer and of the one that trains a transformer."""
    shape, device = session.common.shape, session.device
    training = TrainingConfig(compile="off", batch_size=options.batch)
    config = ImageTokenizerConfig()
    dalle = TransformerConfig(
        depth=shape.depth, width=shape.width, heads=shape.heads, ffn_width=shape.ffn_width
    )
    model = Dalle(dalle, tokenizer.vocabulary_size, tokenizer.context, shape.codes, shape.grid)
    loops: list[tuple[str, Any, Any]] = [
        (
            "image tokenizer",
            ImageTokenizerObjective(build_image_tokenizer(config, options.image_size), config),
            images,
        ),
        ("transformer", DalleObjective(model, dalle), codes),
    ]
    rows = []
    for name, objective, batches in loops:
        if not session.wanted(name):
            continue
        trainer = ours.trainer(objective, training, batches(0), device)
        trainer()
        waited, started = 0.0, time.perf_counter()
        ready = prefetch(batches, 0, options.steps)
        for _ in range(options.steps):
            began = time.perf_counter()
            batch = next(ready)
            waited += time.perf_counter() - began
            trainer.take(batch, progress=0.5)
        total = time.perf_counter() - started
        share = f"{waited / total:.2%} of the time waiting"
        rows.append(
            Row(
                f"{options.steps} steps",
                name,
                True,
                trainer.learner.precision,
                total,
                [total],
                waited / total,
                "of the time",
                note=share,
            )
        )
    say(rows)
    return rows


def write_images(folder: Path, kind: str, options: DataOptions) -> Path:
    """A folder of `options.images` smooth random images with a caption each."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    size = (options.file_size, options.file_size)
    for number in range(options.images):
        noise = rng.integers(256, size=(16, 16, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
        image.save(folder / f"{number:06d}.{kind}", quality=90)
        (folder / f"{number:06d}.txt").write_text(f"image {number}", encoding="utf-8")
    return folder


def code_cache(store: Store, shape: Shape, folder: Path) -> CodeCache:
    """Random codes for every image of the store."""
    rng = np.random.default_rng(0)
    key = CodeKey("random", store.fingerprint, 1, len(store))
    codes = rng.integers(shape.codes, size=(len(store), shape.image))
    return CodeCache.write(folder / "codes", key, [codes])


def doublings(most: int) -> list[int]:
    """1, 2, 4 … and `most`."""
    powers = [2**i for i in range(most.bit_length()) if 2**i < most]
    return [*powers, most]


def _preparation(config: DataConfig, folder: Path) -> Callable[[], Store]:
    def work() -> Store:
        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            return prepare(config, "train", Path(fresh), report=_silent)

    return work


def _in_turn(batches: Callable[[int], Any]) -> Callable[[], object]:
    steps = iter(range(10**9))
    return lambda: batches(next(steps))


def _silent(message: str) -> None:
    pass

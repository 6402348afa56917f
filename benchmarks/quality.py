"""How well image tokenizers reconstruct after equal wall time on equal images."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import ours, peers
from benchmarks.options import Session, Table
from benchmarks.timing import Row
from benchmarks.tokenizer_models import (
    PEER_SETTINGS,
    TokenizerOptions,
    build,
    build_peer,
    configurations,
)
from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.data.augment import load_images
from dalle_mini_impl.data.batches import BatchOrder, ImageBatch
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.preparation import prepare
from dalle_mini_impl.data.store import Store
from dalle_mini_impl.images import psnr
from dalle_mini_impl.precision import Precision, autocast

JUDGED = 512
"""Held-out images that the PSNR is a mean over, at most."""


def quality(options: TokenizerOptions, session: Session) -> Table:
    """Reconstruction PSNR on held-out images; `amount` is in decibels, `seconds` the time given.

    Compiling counts as training time. Schedules end with the time.
    """
    config = data_config(options)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        train = prepare(config, "train", Path(folder), report=print)
        held_out = prepare(config, "validation", Path(folder), report=print)
        chosen = np.arange(min(JUDGED, len(held_out)), dtype=np.int64)
        judged = load_images(held_out, chosen, config, None).to(session.device)
        source = Source(train, config, options.quality_batch, session.device)
        modes = ("eager", "compiled") if session.common.compile else ("eager",)
        for precision in session.able(options.precisions):
            for label, settings in configurations(options).items():
                for mode in modes:
                    name = f"this project, {label}, {mode}"
                    if session.wanted(name):
                        objective = build(settings, options.image_size)
                        found = train_ours(objective, mode, precision, source, judged, options)
                        rows.append(replace(found, contender=name))
            if peers.present(peers.DALLE):
                for label, peer_settings in PEER_SETTINGS.items():
                    name = f"{peers.DALLE} DiscreteVAE, {label}"
                    if session.wanted(name):
                        vae = build_peer(options, peer_settings).to(session.device)
                        found = train_peer(vae, precision, source, judged, options)
                        rows.append(replace(found, contender=name))
    for row in rows:
        print(f"  {row.case}, {row.precision}, {row.contender}: {row.amount:.2f} dB", flush=True)
    title = f"Reconstruction PSNR after {options.quality:g} s of training, compiling included"
    notes = [f"{len(train):,} images of {options.data}, {len(judged)} held out, "
             f"batches of {options.quality_batch}."]  # fmt: skip
    return Table("quality", title, rows, notes)


def data_config(options: TokenizerOptions) -> DataConfig:
    """The images to train and to judge on."""
    return DataConfig(
        path=options.data, image_size=options.image_size, limit=options.data_limit, held_out=0.1
    )


class Source:
    """Batches of images by step, the same for every contender."""

    def __init__(self, store: Store, config: DataConfig, batch: int, device: torch.device) -> None:
        self.store, self.config, self.batch, self.device = store, config, batch, device

    def __call__(self, step: int) -> Tensor:
        indices = BatchOrder(self.batch).indices(len(self.store), step)
        return load_images(self.store, indices, self.config, None).to(self.device)


def train_ours(
    objective: Any,
    mode: str,
    precision: Precision,
    source: Source,
    judged: Tensor,
    options: TokenizerOptions,
) -> Row:
    """This project's objective and defaults, judged by its averaged weights."""
    training = TrainingConfig(
        steps=10**6,
        minutes=options.quality / 60,
        batch_size=options.quality_batch,
        ema=0.99,
        precision=precision,
        compile="on" if mode == "compiled" else "off",
    )
    empty = torch.zeros(options.quality_batch, 1, dtype=torch.long)
    started = time.monotonic()
    trainer = ours.trainer(objective, training, ImageBatch(source(0), empty), source.device)
    overhead = time.monotonic() - started
    while (elapsed := time.monotonic() - started) < options.quality:
        progress = (elapsed - overhead) / max(options.quality - overhead, 1e-9)
        trainer.take(ImageBatch(source(trainer.step), empty), min(1.0, progress))
    taken = time.monotonic() - started
    model: Any = trainer.learner.ema.module
    with torch.no_grad():
        decibels = psnr(model.decode(model.encode(judged)), judged).mean().item()
    return _row(True, precision, options, decibels, taken, trainer.step, ours.count(model))


def train_peer(
    vae: Any, precision: Precision, source: Source, judged: Tensor, options: TokenizerOptions
) -> Row:
    """As train_vae.py: Adam at 1e-3 falling by 2 % and temperature fixed at each 100 steps."""
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.98)
    step, started = 0, time.monotonic()
    while time.monotonic() - started < options.quality:
        optimizer.zero_grad()
        with autocast(precision, source.device):
            loss = vae(source(step), return_loss=True, temp=1.0)
        loss.backward()
        optimizer.step()
        step += 1
        if step % 100 == 0:
            schedule.step()
    taken = time.monotonic() - started
    with torch.no_grad():
        reconstructed = vae.decode(vae.get_codebook_indices(judged)) * 0.5 + 0.5
        decibels = psnr(reconstructed.clamp(0, 1), judged).mean().item()
    return _row(False, precision, options, decibels, taken, step, ours.count(vae))


def _row(
    own: bool,
    precision: str,
    options: TokenizerOptions,
    decibels: float,
    seconds: float,
    steps: int,
    parameters: int,
) -> Row:
    return Row(
        f"{options.quality:g} s",
        "",
        own,
        precision,
        seconds,
        [seconds],
        decibels,
        "dB",
        parameters,
        note=f"{steps} steps",
    )

"""The image tokenizers' training step, beside DALLE-pytorch's `DiscreteVAE`."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import ours, peers
from benchmarks.options import Session, Table
from benchmarks.quality import quality
from benchmarks.timing import Contender, Row
from benchmarks.tokenizer_models import (
    PEER_SETTINGS,
    TokenizerOptions,
    build,
    build_peer,
    configurations,
)
from benchmarks.train import update
from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.data.batches import ImageBatch
from dalle_mini_impl.precision import Precision

NOTES = [
    "This project: every tokenizer with its defaults, VQGAN without discriminator. A step also "
    "checks the loss, clips the gradient and averages the weights.",
    "DiscreteVAE, defaults: hidden_dim 64, codebook_dim 512, no residual blocks, 3 halvings. "
    "DiscreteVAE, train_vae.py: hidden_dim 256, codebook_dim 512, 2 residual blocks. Both with "
    "Adam at 1e-3 and the mean squared error, as train_vae.py has them.",
    "Roofline: the FLOPs that torch counts in one step's convolutions and products, at the peak of "
    "a large square product of the same precision.",
]


def run(options: TokenizerOptions, session: Session) -> list[Table]:
    """The table of training steps and, where asked for, of what they achieve."""
    device = session.device
    generator = torch.Generator().manual_seed(0)
    size = options.image_size
    images = torch.rand(options.batch, 3, size, size, generator=generator)
    batch = ImageBatch(images.to(device), torch.zeros(options.batch, 1, dtype=torch.long))
    rows: list[Row] = []
    for precision in session.able(options.precisions):
        rows += session.measure(
            f"step of {options.batch} images",
            precision,
            contenders(options, session, precision, batch),
            options.batch,
            "images/s",
        )
    grid = size // options.downsampling
    title = f"Image tokenizers: {size}×{size} pixels, {grid}×{grid} codes of 512"
    tables = [Table("tokenizer", title, rows, NOTES)]
    if options.quality > 0:
        tables.append(quality(options, session))
    return tables


def contenders(
    options: TokenizerOptions, session: Session, precision: Precision, batch: ImageBatch
) -> list[Contender]:
    """All that are installed, ready to make steps."""
    device = session.device
    found: list[Contender] = []

    def add(
        name: str,
        step: Callable[[], object],
        gradients: Callable[[], object],
        model: nn.Module,
        own: bool = False,
        note: str = "",
    ) -> None:
        flops = counted(gradients)
        found.append(
            Contender(
                name,
                step,
                own,
                ours.count(model),
                lambda: flops / session.floors.peak(precision),
                note,
            )
        )

    modes: tuple[Literal["off", "on"], ...] = ("off", "on") if session.common.compile else ("off",)
    for label, config in configurations(options).items():
        for mode in modes:
            name = f"this project, {label}, {'compiled' if mode == 'on' else 'eager'}"
            if not session.wanted(name):
                continue
            objective = build(config, options.image_size)
            training = TrainingConfig(precision=precision, compile="off")
            step = ours.trainer(objective, training, batch, device)
            gradients = partial(step.learner.compute_gradients, step.batch, 0, 0.5)
            if mode == "on":
                objective = build(config, options.image_size)
                training = TrainingConfig(precision=precision, compile="on")
                step = ours.trainer(objective, training, batch, device)
            add(name, step, gradients, objective.model, own=True, note=step.compiled)
    if peers.present(peers.DALLE):
        for label, settings in PEER_SETTINGS.items():
            name = f"{peers.DALLE} DiscreteVAE, {label}"
            if session.wanted(name):
                vae = build_peer(options, settings).to(device)
                theirs = peer_step(vae, batch.images, precision, device)
                add(name, theirs, theirs, vae)
    return found


def peer_step(
    vae: nn.Module, images: Tensor, precision: Precision, device: torch.device
) -> Callable[[], None]:
    """Its loss and Adam at 1e-3."""
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3)

    def loss() -> Tensor:
        return vae(images, return_loss=True)

    return partial(update, vae.train(), loss, optimizer, None, precision, device)


def counted(work: Callable[[], object]) -> int:
    """FLOPs of one call's convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()

"""One optimizer step of the transformer: this project's, a Llama's and DALLE-pytorch's."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks import ours, peers
from benchmarks.options import Session, Table
from benchmarks.shape import Shape, Work, training_flops
from benchmarks.timing import Contender, Row
from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.data.batches import CodeBatch
from dalle_mini_impl.precision import Precision, autocast
from dalle_mini_impl.training.objectives.dalle import DalleObjective

NOTES = [
    "A step is forward, backward and update of one batch of the same captions and codes. This "
    "project's step also checks the loss, clips the gradient, averages the weights and counts "
    "the means it would log, as in its training loop. Freed memory stays with the process, as that "
    "loop asks for: for every contender.",
    "Llama: AdamW (fused). DALLE-pytorch: Adam and gradients clipped at 0.5, as its train_dalle.py "
    "has it.",
    "bf16: the forward pass under autocast, weights in fp32, for every contender.",
    "Roofline: 6 FLOPs per weight and position and causal attention, at the peak of a large square "
    "product of the same precision.",
]


@dataclass(frozen=True)
class TrainOptions:
    """The training step of the transformer."""

    batch: int = 32
    """Examples in a step."""
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    """Columns; contenders are compared within one."""


def run(options: TrainOptions, session: Session) -> list[Table]:
    """The table of training steps."""
    shape, device = session.common.shape, session.device
    generator = torch.Generator().manual_seed(0)
    captions = torch.randint(
        1, shape.text_vocabulary, (options.batch, shape.text), generator=generator
    ).to(device)
    codes = torch.randint(shape.codes, (options.batch, shape.image), generator=generator).to(device)
    rows: list[Row] = []
    for precision in session.able(options.precisions):
        rows += session.measure(
            f"step of {options.batch}",
            precision,
            contenders(shape, session, precision, CodeBatch(codes, captions)),
            options.batch * shape.tokens,
            "tokens/s",
        )
    return [
        Table("train", f"Training step of {options.batch} × {shape.tokens} tokens", rows, NOTES)
    ]


def contenders(
    shape: Shape, session: Session, precision: Precision, batch: CodeBatch
) -> list[Contender]:
    """All that are installed, ready to make steps."""
    device, examples = session.device, len(batch.codes)
    found: list[Contender] = []

    def add(
        name: str, step: Callable[[], object], work: Work, own: bool = False, note: str = ""
    ) -> None:
        def floor() -> float:
            return training_flops(shape, work, examples) / session.floors.peak(precision)

        compiled = name.endswith("compiled")
        found.append(Contender(name, step, own, work.parameters, floor, note, compiled))

    optimizers: tuple[tuple[Literal["muon", "adamw"], str], ...] = (
        ("muon", "Muon + AdamW"),
        ("adamw", "AdamW"),
    )
    modes: tuple[Literal["off", "on"], ...] = ("off", "on") if session.common.compile else ("off",)
    for optimizer, label in optimizers:
        for mode in modes:
            name = f"this project, {label}, {'compiled' if mode == 'on' else 'eager'}"
            if not session.wanted(name):
                continue
            model = ours.build_dalle(shape, device)
            config = TrainingConfig(optimizer=optimizer, precision=precision, compile=mode)
            objective = DalleObjective(model, model.config)
            step = ours.trainer(objective, config, batch, device)
            add(name, step, ours.work_of(model), own=True, note=step.compiled)
    if peers.present(peers.LLAMA):
        ids = torch.cat((batch.captions, shape.text_vocabulary + batch.codes), dim=1)
        for mode in modes:
            name = f"{peers.LLAMA}, {'compiled' if mode == 'on' else 'eager'}"
            if session.wanted(name):
                llama, work = peers.build_llama(shape, device)
                if mode == "on":
                    llama.compile()
                add(name, llama_step(llama, ids, precision, device), work)
    if peers.present(peers.DALLE) and session.wanted(peers.DALLE):
        peer, work = peers.build_dalle_pytorch(shape, device)
        add(peers.DALLE, dalle_pytorch_step(peer, batch, precision, device), work)
    return found


def llama_step(
    model: nn.Module, ids: Tensor, precision: Precision, device: torch.device
) -> Callable[[], None]:
    """Next-token cross-entropy over the whole sequence and AdamW."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )

    def loss() -> Tensor:
        return model(input_ids=ids, labels=ids, use_cache=False).loss

    return partial(update, model.train(), loss, optimizer, None, precision, device)


def dalle_pytorch_step(
    model: nn.Module, batch: CodeBatch, precision: Precision, device: torch.device
) -> Callable[[], None]:
    """Its own loss with its own optimizer and clipping, on codes rather than images."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=3e-4)

    def loss() -> Tensor:
        return model(batch.captions, batch.codes, return_loss=True)

    return partial(update, model.train(), loss, optimizer, 0.5, precision, device)


def update(
    model: nn.Module,
    loss: Callable[[], Tensor],
    optimizer: torch.optim.Optimizer,
    clip: float | None,
    precision: Precision,
    device: torch.device,
) -> None:
    """One plain optimizer step."""
    optimizer.zero_grad()
    with autocast(precision, device):
        value = loss()
    value.backward()
    if clip is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()

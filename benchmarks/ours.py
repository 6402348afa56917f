"""This project's models as contenders: the one place that knows how they are driven."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from benchmarks.shape import Shape, Work
from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.kernels.allocator import keep_freed_memory
from dalle_mini_impl.models.dalle import Dalle, TransformerConfig
from dalle_mini_impl.precision import Precision
from dalle_mini_impl.sampling.config import SamplingConfig
from dalle_mini_impl.sampling.sampler import CodeSampler
from dalle_mini_impl.training.compilation import Trial, compile_if_it_pays
from dalle_mini_impl.training.learner import Learner
from dalle_mini_impl.training.objectives.objective import Objective, to_device

Decoder = Callable[[Tensor, int, float], Tensor]
"""Captions `n t`, images (a multiple of n) and guidance to codes `images n`."""


def build_dalle(shape: Shape, device: torch.device) -> Dalle:
    """The transformer of that shape; every branch has a say, as in a trained one."""
    torch.manual_seed(0)
    config = TransformerConfig(
        depth=shape.depth,
        width=shape.width,
        heads=shape.heads,
        ffn_width=shape.ffn_width,
        max_image_tokens=shape.image,
    )
    model = Dalle(config, shape.text_vocabulary, shape.text, shape.codes, shape.grid)
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():  # residual branches start at zero
            nn.init.normal_(parameter, std=0.02)
    return model.to(device)


def work_of(model: Dalle) -> Work:
    """What the model multiplies."""
    return Work(
        parameters=count(model),
        blocks=matrices(model.blocks),
        image_head=matrices(model.image_head),
        text_head=matrices(model.text_head),
        attention_width=model.config.width,
    )


def count(model: nn.Module) -> int:
    """Trained weights."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def matrices(module: nn.Module) -> int:
    """Weights that are multiplied, gains and biases left out."""
    return sum(p.numel() for p in module.parameters() if p.ndim > 1)


def decoders(model: Dalle, compiled: bool, precision: Precision) -> dict[str, Decoder]:
    """The ways in which this project samples codes, by name."""
    sampler = CodeSampler(model)

    def decoder(mode: Literal["on", "off"]) -> Decoder:
        def sample(captions: Tensor, images: int, guidance: float) -> Tensor:
            config = SamplingConfig(guidance=guidance, compile=mode, precision=precision)
            return sampler(captions, range(images), config)

        return sample

    return {"eager": decoder("off")} | ({"compiled": decoder("on")} if compiled else {})


@dataclass
class Trainer:
    """One optimizer step a call, as the training loop makes it; compiled where asked for."""

    learner: Learner
    batch: Any
    compiled: str = ""
    """What the compiler said; empty where nothing was compiled."""
    step: int = 0

    def __call__(self) -> None:
        self.take(self.batch, progress=0.5)

    def take(self, batch: Any, progress: float) -> None:
        """A step on another batch, `progress` of the way through its run."""
        bad = ~torch.isfinite(self.learner.compute_gradients(batch, self.step, progress))
        if bool(bad):
            raise RuntimeError(f"the loss or gradient of step {self.step} is not finite")
        self.learner.update(progress)
        self.step += 1
        if self.step % self.learner.config.log_every == 0:
            self.learner.means.read()


def trainer(
    objective: Objective, config: TrainingConfig, batch: Any, device: torch.device
) -> Trainer:
    """Everything that learns, on `device`. `config.compile` is "on" or "off".

    From here on the process keeps freed memory, as under the training loop: peers in it gain too.
    """
    keep_freed_memory()
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no")
    learner = Learner(objective, config, accelerator)
    batch = to_device(batch, device)
    said: list[str] = []
    started = time.monotonic()
    trial = Trial(lambda: batch, step=0, progress=0.5)
    compile_if_it_pays(learner, trial, lambda: time.monotonic() - started, said.append)
    return Trainer(learner, batch, "; ".join(said))

"""Parameters, FLOPs and memory of a training step, counted on tensors without contents.

A whole step (losses, gradients, update) runs on fake tensors, which have a shape, type and device
but no values, so a model that does not fit is counted as quickly as one that does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from dalle_mini_impl.experiment import Experiment
from dalle_mini_impl.experiment.models import new_image_tokenizer
from dalle_mini_impl.kernels.chunks import LiveBytes
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer
from dalle_mini_impl.planning.dry_run import DryRun, dry_run
from dalle_mini_impl.precision import autocast, choose_precision
from dalle_mini_impl.runs.stages import StageName
from dalle_mini_impl.training.objectives.image_tokenizer import ImageTokenizerObjective
from dalle_mini_impl.training.objectives.objective import micro_batches
from dalle_mini_impl.training.optimizers import build_optimizer
from dalle_mini_impl.training.previews import MEASURED_IMAGES


@dataclass(frozen=True)
class Cost:
    """What one stage's training takes."""

    parameters: int
    """Trained parameters, including a discriminator's."""
    flops_per_sample: float
    """Forward and backward for one example, averaged over the run."""
    flops_per_update: int
    """FLOPs of the optimizers in each step."""
    weights: int
    """Bytes of weights and buffers, including frozen networks."""
    ema: int
    """Bytes of the averaged weights."""
    gradients: int
    """Bytes of gradients."""
    optimizer: int
    """Bytes of optimizer state."""
    activations: int
    """Bytes that the forward pass keeps for the backward pass."""
    peak: int
    """Most bytes at any moment of a step; less than the sum, as not all exist at once.

    Of an image tokenizer also while it is evaluated for a preview; to encode all images takes less.
    On a CPU with the state at the best step, to which a run that stops early returns.
    """

    @property
    def state(self) -> int:
        """Bytes of all that a checkpoint holds of one step."""
        return self.weights + self.ema + self.optimizer


def count_stage(
    experiment: Experiment, stage: StageName, words: int, device: torch.device | None = None
) -> Cost:
    """The cost of a stage's training steps on `device` (the CPU unless given), without compiling.

    words: size of the vocabulary. ConfigError for bf16 on a CPU that would emulate it.
    """
    device = device or torch.device("cpu")
    with torch.device("meta"):
        trial = dry_run(experiment, stage, words)
    with FakeTensorMode():
        return _count(trial, device)


def count_encoding(experiment: Experiment) -> float:
    """FLOPs of turning one image into codes."""
    size = experiment.data.image_size
    with torch.device("meta"):
        tokenizer = new_image_tokenizer(experiment)
    device = torch.device("cpu")
    with FakeTensorMode(), FlopCounterMode(display=False) as flops, torch.no_grad():
        materialize(tokenizer, device)
        tokenizer.eval().encode(torch.empty(1, 3, size, size))
    return float(flops.get_total_flops())


def _count(trial: DryRun, device: torch.device) -> Cost:
    objective, training = trial.objective, trial.training
    discriminator = getattr(objective, "discriminator", None)
    trained: list[nn.Module] = [objective.model] + (
        [discriminator] if discriminator is not None else []
    )
    memory = LiveBytes()
    with memory:
        for module in (*trained, *trial.frozen):
            materialize(module, device)
        for module in trained:
            module.train()
            if isinstance(module, ImageTokenizer):
                # How often codes are used depends on values, and fake tensors have none.
                module.quantizer.eval()
        optimizers = [o for module in trained for o in build_optimizer(module, training)]
        weights = memory.now
        batch = trial.batch(training.batch_size, device)
        late = _step(trial, batch, 1.0, device, optimizers, memory)
        _evaluate(objective, batch, device)
    early = late
    if discriminator is not None and trial.discriminator_start > 0:
        early = _step(trial, batch, 0.0, device, optimizers)
    share = trial.discriminator_start if discriminator is not None else 1.0
    flops = share * early.flops + (1 - share) * late.flops
    parameters = [p for module in trained for p in module.parameters() if p.requires_grad]
    state = [t for o in optimizers for s in o.state.values() for t in s.values()]
    optimizer = _bytes([t for t in state if isinstance(t, Tensor)])
    ema = _bytes([*objective.model.parameters(), *objective.model.buffers()])
    best = weights + ema + optimizer if device.type == "cpu" and training.early_stop else 0
    return Cost(
        parameters=sum(p.numel() for p in parameters),
        flops_per_sample=flops / training.batch_size,
        flops_per_update=late.update_flops,
        weights=weights,
        ema=ema,
        gradients=_bytes(parameters),
        optimizer=optimizer,
        activations=late.kept,
        # The first step makes the optimizer's state at its end; later ones have it all along.
        peak=max(late.peak + optimizer, memory.peak) + ema + best,
    )


def _evaluate(objective: Any, batch: Any, device: torch.device) -> None:
    """What a preview of the image tokenizer's reconstructions computes."""
    if not isinstance(objective, ImageTokenizerObjective):
        return
    images = torch.empty(MEASURED_IMAGES, *batch.images.shape[1:], device=device)
    with torch.no_grad():
        objective.model.eval()
        objective.hard_reconstructions(objective.model, images)
        objective.soft_psnr(objective.model, images)


@dataclass(frozen=True)
class _Step:
    flops: float
    update_flops: int
    kept: int
    peak: int


def _step(
    trial: DryRun,
    batch: Any,
    progress: float,
    device: torch.device,
    optimizers: list[torch.optim.Optimizer],
    memory: LiveBytes | None = None,
) -> _Step:
    """One step on fake tensors, with the same phases as in the training loop.

    Of the micro-batches the largest is computed, and its FLOPs are counted for all.
    """
    objective = trial.objective
    discriminator = getattr(objective, "discriminator", None)
    for optimizer in optimizers:
        optimizer.zero_grad()
    kept = 0
    precision = choose_precision(trial.training.precision, device)
    with FlopCounterMode(display=False) as flops:
        if prepare := getattr(objective, "prepare", None):
            with autocast(precision, device):
                batch = prepare(batch, None)
        before_parts = flops.get_total_flops()
        parts = micro_batches(batch, trial.training.grad_accum_steps)
        part, share = max(parts, key=itemgetter(1))
        for phase in range(1 if discriminator is None else 2):
            if discriminator is not None:
                discriminator.requires_grad_(phase == 1)
            before = memory.now if memory else 0
            with autocast(precision, device):
                if phase == 0:
                    losses = objective.losses(objective.model, part, progress, None)
                else:
                    losses = objective.discriminator_losses(
                        discriminator, objective.model, part, progress, None
                    )
            kept = max(kept, memory.now - before) if memory else 0
            if losses:
                losses["loss"].backward()
            del losses
        if discriminator is not None:
            discriminator.requires_grad_(True)
        so_far, peak = flops.get_total_flops(), memory.peak if memory else 0
        for optimizer in optimizers:
            optimizer.step()
    step_flops = before_parts + (so_far - before_parts) / share
    return _Step(step_flops, flops.get_total_flops() - so_far, kept, peak)


def materialize(module: nn.Module, device: torch.device) -> None:
    """Give a module that was built on the meta device empty tensors on `device`.

    `Module.to` cannot: fake tensors may not be exchanged in place.
    """
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            empty = _like(parameter, device)
            part.register_parameter(name, nn.Parameter(empty, parameter.requires_grad))
        for name, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, name, _like(buffer, device))


def _like(tensor: Tensor, device: torch.device) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)

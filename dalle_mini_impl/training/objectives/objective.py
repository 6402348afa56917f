"""What the loop asks of an objective, and the modules through which it computes losses."""

import dataclasses
from collections.abc import Callable, Iterator
from itertools import pairwise
from operator import itemgetter
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

Batch = TypeVar("Batch")
Losses = dict[str, Tensor]


@runtime_checkable
class Objective(Protocol):
    """Maps a batch to named losses of a model.

    Optional attributes, used where they exist:

    - `discriminator: nn.Module` and `discriminator_losses(discriminator, model, batch, progress,
      generator)`: a second phase after each `losses`, with its own optimizer. Empty losses mean
      that it has not begun. `losses` may use `self.discriminator`, whose parameters are frozen
      meanwhile.
    - `prepare(batch, generator)`: the batch with all that is decided over the whole of it, such as
      random numbers, counts and comparisons, before it is split into micro-batches for `losses`.
    - `after_update()` is called after each change of the weights, to bound some of them.
    - `to(device)` moves frozen helpers.
    - `compile_models = True` where `losses` computes with `progress` in Python: compiled code would
      hold it as a constant, so the models' forward is compiled in place of the losses.
    - `runs_eagerly`: why it cannot be compiled at all.
    """

    @property
    def model(self) -> nn.Module:
        """Trained, averaged and saved."""
        ...

    def losses(self, model: Any, batch: Any, progress: float, generator: torch.Generator) -> Losses:
        """`loss`, the total, and other scalars that are logged under their names.

        progress is in [0, 1]. All noise comes from `generator`, which lives on the batch's
        device, or from torch's global generator: both are seeded by the step.
        """
        ...


@runtime_checkable
class Measured(Protocol):
    """An objective that can be measured on held-out images.

    Optional attributes: `held_out_passes`, the forward passes that an image takes (1), and
    `comparable_from`, the share of the run from which losses of different steps compare (0):
    before it, none counts as the best.
    """

    def held_out_losses(self, model: Any, batch: Any) -> Losses:
        """Named means over the batch; the first one decides which weights are best.

        Equal inputs give equal losses, whatever the training step: nothing here is random or
        follows a schedule.
        """
        ...


def held_out_passes(objective: Any) -> float:
    """Forward passes that an image takes in `held_out_losses`."""
    return getattr(objective, "held_out_passes", 1.0)


def comparable_from(objective: Any) -> float:
    """Share of the run from which held-out losses of different steps compare."""
    return getattr(objective, "comparable_from", 0.0)


class LossModule(nn.Module):
    """The objective's losses as a forward pass, which data parallelism needs."""

    def __init__(self, module: nn.Module, losses: Callable[..., Losses]) -> None:
        super().__init__()
        self.module = module
        self.losses = losses
        self.compiled: Callable[..., Losses] | None = None

    def forward(self, *inputs: Any) -> Losses:
        return (self.compiled or self.losses)(self.module, *inputs)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch, a dataclass of tensors, on `device`."""
    return _mapped(batch, lambda tensor: tensor.to(device, non_blocking=True))


def micro_batches(batch: Batch, count: int) -> Iterator[tuple[Batch, float]]:
    """`count` nearly equal parts of the batch, each with its share of the examples."""
    size = batch_length(batch)
    bounds = [size * i // count for i in range(count + 1)]
    for rows in (slice(start, end) for start, end in pairwise(bounds) if end > start):
        yield _mapped(batch, itemgetter(rows)), (rows.stop - rows.start) / size


def batch_length(batch: Any) -> int:
    """Examples in a batch: the length of its first tensor."""
    return len(getattr(batch, dataclasses.fields(batch)[0].name))


def _mapped(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    changed = {
        field.name: change(value)
        for field in dataclasses.fields(batch)  # type: ignore[arg-type]
        if isinstance(value := getattr(batch, field.name), Tensor)
    }
    return dataclasses.replace(batch, **changed)  # type: ignore[type-var]

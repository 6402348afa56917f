"""Losses that are not finite: noting the step, and finding the tensor by repeating it."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class NonFiniteLoss(RuntimeError):
    """Training met NaN or infinity; the message names the step and the first bad tensor."""


class FirstBadStep:
    """Notes on the GPU which step's gradients were first not finite.

    Reading a tensor makes the CPU wait for the GPU, so the loop reads this only when it reads
    something else anyway. Until then the weights stay as they were before that step.
    """

    def __init__(self, device: torch.device) -> None:
        self._step = torch.full((), -1.0, device=device)
        self._progress = torch.zeros((), device=device)

    def note(self, bad: Bool[Tensor, ""], step: int, progress: float) -> Float[Tensor, ""]:
        """Note `step` if it is the first bad one; returns 1 from that step on and 0 before."""
        first = bad & (self._step < 0)
        self._step = torch.where(first, float(step), self._step)
        self._progress = torch.where(first, progress, self._progress)
        return (self._step >= 0).float()

    def read(self) -> tuple[int, float] | None:
        """The first bad step with its progress, or None."""
        step = int(self._step)
        return (step, float(self._progress)) if step >= 0 else None


def nonfinite_loss(
    stage: str, step: int, bad_tensor: str, checkpoint: Path | None, precision: str
) -> NonFiniteLoss:
    """The error to raise, with advice."""
    saved = f"the last good checkpoint is {checkpoint}"
    advice = "lower learning_rate and muon_learning_rate or max_grad_norm"
    if precision == "bf16":
        advice += ", or set precision to fp32"
    return NonFiniteLoss(
        f"{stage}: the loss or its gradient at step {step} is not finite. First bad tensor: "
        f"{bad_tensor}. Nothing was saved over it; "
        f"{saved if checkpoint else 'there is no checkpoint yet'}. To go on, {advice}."
    )


def first_bad_tensor(
    modules: Mapping[str, nn.Module], batch: Any, compute: Callable[[], dict[str, Tensor]]
) -> str | None:
    """A description of the first non-finite tensor that appears when `compute` runs, or None.

    It is looked for in the batch, in the parameters and buffers of `modules`, and then in the order
    of computation in the modules' outputs, the losses and the gradients of `loss`.
    """
    for name, tensor in _fields(batch):
        if _bad(tensor):
            return f"{name} of the batch, {_describe(tensor)}"
    for prefix, module in modules.items():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if _bad(tensor):
                return f"parameter {prefix}{name}, {_describe(tensor)}"

    found: list[str] = []
    handles = []
    for prefix, module in modules.items():
        for name, part in module.named_modules():
            label = f"{(prefix + name).rstrip('.') or 'the model'} ({type(part).__name__})"
            handles.append(part.register_forward_hook(_output_hook(label, found)))
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                hook = _gradient_hook(f"the gradient of {prefix}{name}", found)
                handles.append(parameter.register_hook(hook))
    try:
        losses = compute()
        found += [f"loss {name!r}" for name, value in losses.items() if _bad(value)]
        if losses and not found:
            losses["loss"].backward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _fields(batch: Any) -> Iterator[tuple[str, Tensor]]:
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            yield field.name, value


def _output_hook(name: str, found: list[str]) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        outputs = output if isinstance(output, tuple | list) else [output]
        bad = [t for t in outputs if isinstance(t, Tensor) and _bad(t)]
        if bad:
            found.append(f"the output of {name}, {_describe(bad[0])}")

    return hook


def _gradient_hook(name: str, found: list[str]) -> Callable[[Tensor], None]:
    def hook(gradient: Tensor) -> None:
        if _bad(gradient):
            found.append(f"{name}, {_describe(gradient)}")

    return hook


def _bad(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and not bool(torch.isfinite(tensor.detach()).all())


def _describe(tensor: Tensor) -> str:
    bad = int((~torch.isfinite(tensor.detach())).sum())
    return f"{bad} of {tensor.numel()} values non-finite in shape {list(tensor.shape)}"

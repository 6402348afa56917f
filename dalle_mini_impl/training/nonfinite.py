"""Finding the tensor that made a loss non-finite, by repeating the step with hooks."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class NonFiniteLoss(RuntimeError):
    """Training met NaN or infinity; the message names the step and the first bad tensor."""


def first_bad_tensor(
    modules: Mapping[str, nn.Module], batch: Any, compute: Callable[[], dict[str, Tensor]]
) -> str | None:
    """In words, the first non-finite tensor that appears when `compute` is run, or None.

    Looked for in the batch, the parameters and buffers of `modules`, then in order of time in
    the modules' outputs, the losses and the gradients of their `loss`.
    """
    for name, tensor in _fields(batch):
        if _bad(tensor):
            return f"{name} of the batch, {_what(tensor)}"
    for prefix, module in modules.items():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if _bad(tensor):
                return f"parameter {prefix}{name}, {_what(tensor)}"

    found: list[str] = []
    handles = []
    for prefix, module in modules.items():
        for name, part in module.named_modules():
            kind = f"{(prefix + name).rstrip('.') or 'the model'} ({type(part).__name__})"
            handles.append(part.register_forward_hook(_output_hook(kind, found)))
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
            found.append(f"the output of {name}, {_what(bad[0])}")

    return hook


def _gradient_hook(name: str, found: list[str]) -> Callable[[Tensor], None]:
    def hook(gradient: Tensor) -> None:
        if _bad(gradient):
            found.append(f"{name}, {_what(gradient)}")

    return hook


def _bad(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and not bool(torch.isfinite(tensor.detach()).all())


def _what(tensor: Tensor) -> str:
    bad = int((~torch.isfinite(tensor.detach())).sum())
    return f"{bad} of {tensor.numel()} values non-finite in shape {list(tensor.shape)}"

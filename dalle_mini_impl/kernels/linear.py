"""Linear layers: which library, or generated code, does their products."""

import math
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula


class Linear(nn.Linear):
    """A linear layer whose product is done by what does it fastest on a CPU.

    One row, in compiled code, is written out: it is bound by reading the weights, which generated
    code does while it also does what stands before and after the product; a library call does that
    alone. Training in fp32 takes oneDNN where that is faster (`Product`). Weights in bf16 are
    multiplied in bf16, whatever comes in.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        super().__init__(inputs, outputs, bias)
        self.by_onednn = onednn_is_faster()

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b o"]:
        if self.weight.dtype == torch.bfloat16:
            x = x.to(torch.bfloat16)
        on_cpu = x.device.type == "cpu"
        if on_cpu and torch.compiler.is_compiling() and x.numel() == self.in_features:
            product = (x[..., None, :] * self.weight).sum(dim=-1)
        elif on_cpu and self.by_onednn and self._trains_in_fp32(x):
            product = Product.apply(x, self.weight)
        else:
            return super().forward(x)
        return product if self.bias is None else product + self.bias

    def _trains_in_fp32(self, x: Tensor) -> bool:
        trains = torch.is_grad_enabled() and self.weight.requires_grad
        plain = x.dtype == torch.float32 and x.dim() > 1
        return trains and plain and not torch.is_autocast_enabled("cpu")


def onednn_is_faster() -> bool:
    """Whether oneDNN's fp32 products are faster here than MKL's, which torch takes.

    On an AMD EPYC with AVX-512 MKL's took 1.1 to 1.4 times as long (3,072 rows, 256 to 1,376
    columns); for Intel's processors MKL is made, and none was measured. torch keeps the operator
    private, so it may be gone.
    """
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    usable = torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)
    there = usable and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return wide and there and processor_vendor() == "AuthenticAMD"


@cache
def processor_vendor() -> str:
    """Who made the processor, as Linux names it; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id"))
    return next(named, "")


class Product(torch.autograd.Function):
    """x · Wᵀ in fp32, which oneDNN does for the output and for the gradient of x.

    For the gradient of W MKL was the faster one. Gradients cannot be differentiated again.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "*b c"], weight: Float[Tensor, "o c"]
    ) -> Float[Tensor, "*b o"]:
        ctx.save_for_backward(x, weight)
        return multiply(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Float[Tensor, "*b o"]) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensors
        upstream = gradients[0]
        to_x = multiply(upstream, weight.mT) if ctx.needs_input_grad[0] else None
        return to_x, upstream.flatten(0, -2).mT @ x.flatten(0, -2)


@torch.library.custom_op("dalle_mini_impl::multiply", mutates_args=())
def multiply(x: Tensor, weight: Tensor) -> Tensor:
    """x · Wᵀ by oneDNN; an operator of its own, as inductor takes torch's for frozen weights only.

    x: `*b c`; weight: `o c`; returns `*b o`.
    """
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


@multiply.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


@register_flop_formula(torch.ops.dalle_mini_impl.multiply)
def _(x: torch.Size, weight: torch.Size, **_: Any) -> int:
    return 2 * math.prod(x[:-1]) * math.prod(weight)


def cast_linears_to_bf16(model: nn.Module) -> None:
    """Turn the weights of all blocks' products to bf16, for sampling; norms and heads stay."""
    for module in model.modules():
        if isinstance(module, Linear):
            module.to(torch.bfloat16)

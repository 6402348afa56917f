"""Root-mean-square normalization (Zhang and Sennrich 2019, arXiv 1910.07467)."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dalle_mini_impl.kernels.force_plain import force_plain


def rms_norm(
    x: Float[Tensor, "*b c"], gain: Float[Tensor, "c"], eps: float | None = None
) -> Float[Tensor, "*b c"]:
    """x / √(mean(x²) + eps) · gain, in the type of `x`; eps None takes that of fp32."""
    return fast(x, gain, eps) if autograd_is_slow(x) else plain(x, gain, eps)


def autograd_is_slow(x: Tensor) -> bool:
    """Whether autograd would differentiate six operations one by one: on a CPU, in eager training.

    Measured in docs/performance.md.
    """
    eager_training = torch.is_grad_enabled() and not torch.compiler.is_compiling()
    return eager_training and x.device.type == "cpu" and not force_plain()


def plain(
    x: Float[Tensor, "*b c"], gain: Float[Tensor, "c"], eps: float | None = None
) -> Float[Tensor, "*b c"]:
    """Torch's own, whose fused kernel wants the gain in the type of `x`."""
    return F.rms_norm(x, gain.shape, gain.to(x.dtype), eps)


def fast(
    x: Float[Tensor, "*b c"], gain: Float[Tensor, "c"], eps: float | None = None
) -> Float[Tensor, "*b c"]:
    """The same with its gradient written out, computed in fp32."""
    out: Tensor = RmsNormFunction.apply(x, gain, eps)
    return out


class RmsNormFunction(torch.autograd.Function):
    """Forward and backward pass, keeping the input and one number of each row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float | None) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        eps = torch.finfo(wide.dtype).eps if eps is None else eps
        mean = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        inverse = mean.add_(eps).rsqrt_()
        ctx.save_for_backward(x, gain, inverse)
        return (wide * inverse).mul_(gain).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x, gain, inverse = ctx.saved_tensors
        normal = x * inverse
        upstream = gradients[0].to(normal.dtype)
        along = upstream * normal
        shared = (along * gain).mean(dim=-1, keepdim=True)
        to_x = torch.addcmul(upstream * gain, normal, shared, value=-1).mul_(inverse)
        return to_x.to(x.dtype), along.flatten(0, -2).sum(dim=0), None

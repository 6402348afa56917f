"""The product of a linear layer."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dalle_mini_impl.kernels.force_plain import force_plain


def linear(
    x: Float[Tensor, "*b c"], weight: Float[Tensor, "o c"], bias: Float[Tensor, "o"] | None
) -> Float[Tensor, "*b o"]:
    """x · weightᵀ + bias."""
    return fast(x, weight, bias) if is_one_compiled_row(x) else plain(x, weight, bias)


def is_one_compiled_row(x: Float[Tensor, "*b c"]) -> bool:
    """Whether generated code multiplies faster than a library: a single row, compiled, on a CPU.

    Such a product is bound by reading the weights, and generated code does the operations around it
    in the same loop. Measured in docs/performance.md.
    """
    if not torch.compiler.is_compiling() or force_plain():
        return False
    return x.device.type == "cpu" and x.numel() == x.shape[-1]


def plain(
    x: Float[Tensor, "*b c"], weight: Float[Tensor, "o c"], bias: Float[Tensor, "o"] | None
) -> Float[Tensor, "*b o"]:
    """Torch's own product."""
    return F.linear(x, weight, bias)


def fast(
    x: Float[Tensor, "*b c"], weight: Float[Tensor, "o c"], bias: Float[Tensor, "o"] | None
) -> Float[Tensor, "*b o"]:
    """The same as a sum of products, which a compiler turns into a loop."""
    product = (x[..., None, :] * weight).sum(dim=-1)
    return product if bias is None else product + bias

"""Look-ups in a table whose gradient many threads can add up."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from dalle_mini_impl.kernels.force_plain import force_plain


class Embedding(nn.Embedding):
    """torch's `nn.Embedding`, with a gradient that is fast in compiled training on a CPU.

    There torch's compiler lets all threads add to the same rows with atomic operations: on two
    cores it took a tenth of the demo's training step.
    """

    def forward(self, ids: Int[Tensor, "*b"]) -> Float[Tensor, "*b c"]:
        if compiled_training_on_cpu(self.weight):
            out: Tensor = LookUp.apply(self.weight, ids)
            return out
        return F.embedding(ids, self.weight)


def compiled_training_on_cpu(weight: Tensor) -> bool:
    """Whether the gradient would be compiled for a CPU."""
    compiled_training = torch.is_grad_enabled() and torch.compiler.is_compiling()
    return compiled_training and weight.device.type == "cpu" and not force_plain()


class LookUp(torch.autograd.Function):
    """The look-up, with torch's own gradient as an operator that is not compiled."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.rows = len(weight)
        return F.embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (ids,) = ctx.saved_tensors
        return embedding_gradient(gradients[0], ids, ctx.rows), None


@torch.library.custom_op("dalle_mini_impl::embedding_gradient", mutates_args=())
def embedding_gradient(gradient: Tensor, ids: Tensor, rows: int) -> Tensor:
    """The sum of the gradients of each of `rows` rows; the compiler leaves it as it is."""
    return torch.ops.aten.embedding_dense_backward(gradient.contiguous(), ids, rows, -1, False)


@embedding_gradient.register_fake
def _(gradient: Tensor, ids: Tensor, rows: int) -> Tensor:
    return gradient.new_empty(rows, gradient.shape[-1])

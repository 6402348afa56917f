"""The exponential moving average of a model's weights, which is what a stage saves."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Ema(nn.Module):
    """A copy of a model, in eval mode, whose weights follow the model's.

    torch's own `AveragedModel` makes the CPU wait for the GPU at each update.
    """

    n_averaged: Tensor

    def __init__(self, model: nn.Module, max_decay: float) -> None:
        super().__init__()
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        self.max_decay = max_decay
        # Stays on the CPU, where it is read.
        self.register_buffer("n_averaged", torch.tensor(1, device="cpu"))

    @torch.no_grad()
    def update(self, model: nn.Module, found_inf: Float[Tensor, ""] | None = None) -> None:
        """Move towards the weights of `model`, unless `found_inf` is 1, and copy its buffers."""
        count = int(self.n_averaged)
        # The decay rises with the steps, so short runs forget the initial weights.
        share = 1 - min(self.max_decay, (1 + count) / (10 + count))
        averages: list[Tensor] = list(self.module.parameters())
        weights: list[Tensor] = list(model.parameters())
        if found_inf is None:
            torch._foreach_lerp_(averages, weights, share)
        else:
            torch._foreach_lerp_(averages, weights, [share * (1 - found_inf)] * len(weights))
        for average, value in zip(self.module.buffers(), model.buffers(), strict=True):
            average.copy_(value)
        self.n_averaged += 1

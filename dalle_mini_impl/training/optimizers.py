"""Muon (Jordan et al. 2024) for hidden matrices, AdamW (arXiv 1711.05101) for everything else.

torch's own `Muon` takes two-dimensional parameters one at a time and always multiplies in bf16,
which most CPUs emulate. This one batches parameters of equal shape and also takes convolutions.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.precision import native_bf16

SMALL_SIDE = 128
"""Up to this side of Gram matrices, calling their products one by one takes longer than they do.
Larger matrices are orthogonalized shape by shape, so that each stays in the processor's cache."""


def orthogonalize(
    stacks: Sequence[Float[Tensor, "_ _ _"]],
) -> list[Float[Tensor, "_ _ _"]]:
    """Pull the singular values of each matrix towards 1 by five quintic Newton–Schulz steps.

    stacks: matrices of equal shape each, [n, rows, columns].
    They end between about 0.7 and 1.2, which trains as well as exactly 1 (Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon). A zero matrix stays zero. Computed and returned in
    bf16 where the hardware multiplies it natively (twice as fast), else in fp32.

    A step multiplies X by a polynomial of its Gram matrix X·Xᵀ, and the same polynomial gives the
    Gram matrix after the step. So the factors of several steps are multiplied while they are small
    and applied to X at once: faster where X is at least 1.5 times as long as wide, else about even.
    """
    low = native_bf16(stacks[0].device)
    wide = []
    for matrices in stacks:
        x = matrices.to(torch.bfloat16 if low else torch.float32)
        x = x.mT if is_tall(x) else x
        wide.append(x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7))
    # Rounding errors of a Gram matrix grow twelvefold per step, so bf16 takes two steps at a time.
    for steps in (2, 2, 1) if low else (5,):
        factors = _factors([x @ x.mT for x in wide], steps)
        wide = [factor @ x for factor, x in zip(factors, wide, strict=True)]
    return [x.mT if is_tall(given) else x for x, given in zip(wide, stacks, strict=True)]


def is_tall(matrices: Float[Tensor, "n rows columns"]) -> bool:
    """Whether the matrices have more rows than columns."""
    return matrices.shape[1] > matrices.shape[2]


def _factors(grams: Sequence[Float[Tensor, "_ _ _"]], steps: int) -> list[Float[Tensor, "_ _ _"]]:
    """`newton_schulz` of every stack, those of equal size together."""
    by_size: dict[int, list[int]] = defaultdict(list)
    for at, gram in enumerate(grams):
        by_size[gram.shape[1]].append(at)
    found: dict[int, Tensor] = {}
    for places in by_size.values():
        together = newton_schulz(torch.cat([grams[at] for at in places]), steps)
        parts = together.split([len(grams[at]) for at in places])
        found |= dict(zip(places, parts, strict=True))
    return [found[at] for at in range(len(grams))]


def newton_schulz(gram: Float[Tensor, "n r r"], steps: int) -> Float[Tensor, "n r r"]:
    """The factor by which `steps` Newton–Schulz steps multiply a matrix with this Gram matrix G.

    For one step it is a·I + b·G + c·G², with the coefficients of Jordan et al. 2024.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal(dim1=1, dim2=2).add_(a)
    if steps == 1:
        return factor
    return newton_schulz(factor @ gram @ factor, steps - 1) @ factor


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose update is orthogonalized (Jordan et al. 2024).

    Parameters need two dimensions or more; convolution kernels are taken as matrices of shape
    out × (in · height · width). The update is scaled by sqrt(max(1, rows / columns)) as in the
    original, so one learning rate serves all shapes. Weight decay is decoupled. Like torch's fused
    optimizers it does not change the parameters while an attribute `found_inf` is a tensor of 1.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim < 2:
                    shape = tuple(parameter.shape)
                    raise ValueError(f"Muon takes matrices, not shape {shape}; give it to AdamW")

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient; `closure` re-evaluates the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for alike in _together(_by_shape(group["params"])):
                nesterov = [self._nesterov(parameters, group["momentum"]) for parameters in alike]
                updates = orthogonalize(nesterov)
                for parameters, own in zip(alike, updates, strict=True):
                    self._update(parameters, own, group)
        return loss

    def _nesterov(self, parameters: list[Tensor], momentum: float) -> Float[Tensor, "n _ _"]:
        """Nesterov's averages of parameters that share shape, dtype and device, as matrices."""
        found = getattr(self, "found_inf", None)
        gradients = [p.grad for p in parameters if p.grad is not None]
        if found is not None:
            bad = found.bool()
            gradients = [torch.where(bad, torch.zeros_like(g), g) for g in gradients]
        averages = []
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            averages.append(state["momentum"])
        torch._foreach_lerp_(averages, gradients, 1 - momentum)
        nesterov = torch._foreach_lerp(gradients, averages, momentum)
        return torch.stack([n.flatten(1) for n in nesterov]).float()

    def _update(
        self, parameters: list[Tensor], updates: Float[Tensor, "n _ _"], group: dict[str, Any]
    ) -> None:
        """Change parameters of equal shape by their orthogonalized updates."""
        found = getattr(self, "found_inf", None)
        rows, columns = updates.shape[1:]
        rate = group["lr"] * math.sqrt(max(1.0, rows / columns))
        decay = group["lr"] * group["weight_decay"]
        if found is not None:
            updates = updates * (1 - found)
            decay = decay * (1 - found)
        if group["weight_decay"] > 0:
            torch._foreach_mul_(parameters, 1 - decay)
        changes = [u.view_as(p).to(p.dtype) for u, p in zip(updates, parameters, strict=True)]
        torch._foreach_add_(parameters, changes, alpha=-rate)


def _together(groups: Iterable[list[Tensor]]) -> Iterator[list[list[Tensor]]]:
    """The groups of small matrices at once, every other one alone."""
    small = []
    for parameters in groups:
        rows = len(parameters[0])
        if min(rows, parameters[0].numel() // rows) <= SMALL_SIDE:
            small.append(parameters)
        else:
            yield [parameters]
    if small:
        yield small


def _by_shape(parameters: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    groups: dict[tuple[Any, ...], list[Tensor]] = defaultdict(list)
    for parameter in parameters:
        if parameter.grad is not None:
            groups[(parameter.shape, parameter.dtype, parameter.device)].append(parameter)
    return groups.values()


def build_optimizer(model: nn.Module, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """The optimizers of `model`, each group with its peak learning rate as `initial_lr`.

    Muon gets the hidden matrices and convolutions. AdamW gets gains and biases, embeddings
    (weights of `nn.Embedding`, parameters that a module names in its attribute
    `adamw_parameters`) and the weights of modules with `output_head = True`. Only matrices that
    are not embeddings decay.
    """
    embeddings = {id(p) for p in _embeddings(model)}
    heads = {
        id(p) for m in model.modules() if getattr(m, "output_head", False) for p in m.parameters()
    }
    muon: list[Tensor] = []
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2 or id(parameter) in embeddings:
            plain.append(parameter)
        elif config.optimizer == "adamw" or id(parameter) in heads:
            decayed.append(parameter)
        else:
            muon.append(parameter)

    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    optimizers: list[torch.optim.Optimizer] = []
    if muon:
        optimizers.append(
            Muon(muon, lr=config.muon_learning_rate, weight_decay=config.weight_decay)
        )
    if groups:
        fused = all(p.device.type in ("cpu", "cuda") for p in model.parameters())
        optimizers.append(
            torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=fused)
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def _embeddings(model: nn.Module) -> Iterator[Tensor]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            yield module.weight
        for declared in getattr(module, "adamw_parameters", ()):
            found = [p for n, p in module.named_parameters() if f"{n}.".startswith(f"{declared}.")]
            if not found:
                where = f"module {name!r}" if name else type(model).__name__
                raise ValueError(
                    f"adamw_parameters of {where} names {declared!r}, which it does not have"
                )
            yield from found


def set_learning_rate(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Set every group's learning rate to `factor` times its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

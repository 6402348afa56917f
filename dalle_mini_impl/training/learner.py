"""One optimizer step: the gradients of the objective's losses, the update, and the EMA."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor, nn

from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.precision import allow_tf32, autocast, choose_precision
from dalle_mini_impl.training.early_stopping import Decay, current_learning_rate
from dalle_mini_impl.training.ema import Ema
from dalle_mini_impl.training.nonfinite import first_bad_tensor
from dalle_mini_impl.training.objectives.objective import (
    Losses,
    LossModule,
    Measured,
    Objective,
    batch_length,
    micro_batches,
    to_device,
)
from dalle_mini_impl.training.optimizers import build_optimizer, set_learning_rate
from dalle_mini_impl.training.reporting import MeanMetrics


class Learner:
    """All that a step changes: the model, its EMA, a discriminator, and their optimizers."""

    def __init__(
        self, objective: Objective, config: TrainingConfig, accelerator: Accelerator
    ) -> None:
        self.objective, self.config, self.accelerator = objective, config, accelerator
        self.device = accelerator.device
        self.precision = choose_precision(config.precision, self.device)
        allow_tf32(self.device)
        if hasattr(objective, "to"):
            objective.to(self.device)

        self.networks: dict[str, nn.Module] = {"": objective.model}
        self.loss_modules = [LossModule(objective.model, objective.losses)]
        discriminator = getattr(objective, "discriminator", None)
        if isinstance(discriminator, nn.Module):
            self.networks["discriminator."] = discriminator
            self.loss_modules.append(LossModule(discriminator, _discriminator_losses(objective)))
        for network in self.networks.values():
            network.to(self.device).train()

        self.ema = Ema(objective.model, config.ema)
        self.optimizers = [
            optimizer
            for network in self.networks.values()
            for optimizer in build_optimizer(network, config)
        ]
        self.prepared_modules = [accelerator.prepare(module) for module in self.loss_modules]
        self.means = MeanMetrics()

    def compute_gradients(self, batch: Any, step: int, progress: float) -> Float[Tensor, ""]:
        """Compute the gradients; returns a sum that is NaN or infinite if any loss or norm is."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        generator = self._seed(step)
        batch = self._prepared(batch, generator)
        finite_check = torch.zeros((), device=self.device)
        shares = list(micro_batches(batch, self.config.grad_accum_steps))
        for number, (micro_batch, share) in enumerate(shares, 1):
            for phase, module in enumerate(self.prepared_modules):
                self._freeze_discriminator(phase)
                last = number == len(shares)
                with nullcontext() if last else self.accelerator.no_sync(module):
                    with autocast(self.precision, self.device):
                        losses: Losses = module(micro_batch, progress, generator)
                    if not losses:
                        continue
                    self.accelerator.backward(losses["loss"] * share)
                prefix = "discriminator_" if phase else ""
                self.means.add({prefix + name: loss for name, loss in losses.items()}, share)
                finite_check = finite_check + losses["loss"].detach().float()
        for name, network in self.networks.items():
            limit = self.config.max_grad_norm or float("inf")
            norm = nn.utils.clip_grad_norm_(network.parameters(), limit)
            self.means.add({name.replace(".", "_") + "gradient_norm": norm})
            finite_check = finite_check + norm
        return finite_check

    def update(
        self,
        progress: float,
        found_inf: Float[Tensor, ""] | None = None,
        decay: Decay | None = None,
    ) -> None:
        """Move the weights and their EMA by the gradients, unless `found_inf` is 1.

        decay: after an early stop.
        """
        # At the middle of the step the rate is zero for neither the first step nor the last.
        middle = min(1.0, progress + 0.5 / self.config.steps)
        set_learning_rate(self.optimizers, current_learning_rate(self.config, middle, decay))
        for optimizer in self.optimizers:
            if found_inf is not None:
                optimizer.found_inf = found_inf  # type: ignore[attr-defined]
            optimizer.step()
        if after_update := getattr(self.objective, "after_update", None):
            after_update()
        self.ema.update(self.objective.model, found_inf)

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Any]) -> dict[str, float]:
        """Means of the objective's held-out losses with the averaged weights, of all processes."""
        assert isinstance(self.objective, Measured)
        means = MeanMetrics()
        for batch in batches:
            with autocast(self.precision, self.device):
                losses = self.objective.held_out_losses(
                    self.ema.module, to_device(batch, self.device)
                )
            means.add(losses, float(batch_length(batch)))
        found = means.read()
        if self.accelerator.num_processes == 1:
            return found
        values = torch.tensor(list(found.values()), dtype=torch.float64, device=self.device)
        reduced = self.accelerator.reduce(values, reduction="mean")
        return dict(zip(found, reduced.tolist(), strict=True))

    def diagnose(self, batch: Any, step: int, progress: float) -> str:
        """Describes the first bad tensor of a step whose gradients were not finite."""
        generator = self._seed(step)

        def prepare() -> Losses:
            nonlocal batch
            batch = self._prepared(batch, generator)
            return {}

        if (found := first_bad_tensor(self.networks, batch, prepare)) is not None:
            return found
        for micro_batch, _ in micro_batches(batch, self.config.grad_accum_steps):
            for phase, module in enumerate(self.loss_modules):
                self._freeze_discriminator(phase)
                compute = partial(module.losses, module.module, micro_batch, progress, generator)
                with autocast(self.precision, self.device):
                    found = first_bad_tensor(self.networks, micro_batch, compute)
                if found is not None:
                    return found
        return "none when the step was repeated, without compilation and on one process"

    def state_dict(self) -> dict[str, Any]:
        """All that a checkpoint needs."""
        return {
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "ema": self.ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        self.ema.load_state_dict(state["ema"])
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            configured = [dict(group) for group in optimizer.param_groups]
            optimizer.load_state_dict(values)
            # Peak rates and decay come from the configuration, which may have changed since.
            for group, fresh in zip(optimizer.param_groups, configured, strict=True):
                group.update({name: fresh[name] for name in ("initial_lr", "weight_decay")})

    def _seed(self, step: int) -> torch.Generator:
        """Seed all randomness of a step with a number that no other step or rank has."""
        entropy = (self.config.seed % 2**63, step, self.accelerator.process_index, 1)
        seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
        torch.manual_seed(seed)
        return torch.Generator(self.device).manual_seed(seed)

    def _prepared(self, batch: Any, generator: torch.Generator) -> Any:
        prepare = getattr(self.objective, "prepare", None)
        if prepare is None:
            return batch
        with autocast(self.precision, self.device):
            return prepare(batch, generator)

    def _freeze_discriminator(self, phase: int) -> None:
        if "discriminator." in self.networks:
            self.networks["discriminator."].requires_grad_(phase == 1)


def _discriminator_losses(objective: Any) -> Callable[..., Losses]:
    def losses(discriminator: nn.Module, *inputs: Any) -> Losses:
        return objective.discriminator_losses(discriminator, objective.model, *inputs)

    return losses

"""One optimizer step: the gradients of the objective's losses, the update, and the EMA."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.precision import allow_tf32, autocast, choose_precision
from dalle_mini_impl.training.nonfinite import first_bad_tensor
from dalle_mini_impl.training.objectives.objective import (
    Losses,
    LossModule,
    Objective,
    micro_batches,
)
from dalle_mini_impl.training.optimizers import build_optimizer, set_learning_rate
from dalle_mini_impl.training.reporting import MeanMetrics
from dalle_mini_impl.training.schedules import learning_rate


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

        self.parts: dict[str, nn.Module] = {"": objective.model}
        self.phases = [LossModule(objective.model, objective.losses)]
        discriminator = getattr(objective, "discriminator", None)
        if isinstance(discriminator, nn.Module):
            self.parts["discriminator."] = discriminator
            self.phases.append(LossModule(discriminator, _discriminator_losses(objective)))
        for part in self.parts.values():
            part.to(self.device).train()

        self.ema = AveragedModel(objective.model, multi_avg_fn=self._update_ema)
        self.ema.eval().requires_grad_(False)
        self.ema.update_parameters(objective.model)  # The first call copies.
        self.optimizers = [
            optimizer for part in self.parts.values() for optimizer in build_optimizer(part, config)
        ]
        self.modules = [accelerator.prepare(phase) for phase in self.phases]
        self.means = MeanMetrics()

    def gradients(self, batch: Any, step: int, progress: float) -> Tensor:
        """Compute the gradients; returns a scalar that is finite if they and the losses are."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        generator = self._seed(step)
        total = torch.zeros((), device=self.device)
        parts = list(micro_batches(batch, self.config.grad_accum_steps))
        for number, (part, share) in enumerate(parts):
            for phase, module in enumerate(self.modules):
                self._freeze_discriminator(phase)
                last = number == len(parts) - 1
                with nullcontext() if last else self.accelerator.no_sync(module):
                    with autocast(self.precision, self.device):
                        losses: Losses = module(part, progress, generator)
                    if not losses:
                        continue
                    self.accelerator.backward(losses["loss"] * share)
                prefix = "discriminator_" if phase else ""
                self.means.add({prefix + name: loss for name, loss in losses.items()}, share)
                total = total + losses["loss"].detach().float()
        for name, trained in self.parts.items():
            limit = self.config.max_grad_norm or float("inf")
            norm = nn.utils.clip_grad_norm_(trained.parameters(), limit)
            self.means.add({name.replace(".", "_") + "gradient_norm": norm})
            total = total + norm
        return total

    def update(self, progress: float, hold: Tensor | None = None) -> None:
        """Move the weights by the gradients; where the tensor `hold` is 1, nothing changes."""
        # At the middle of the step the rate is zero for neither the first step nor the last.
        middle = min(1.0, progress + 0.5 / self.config.steps)
        set_learning_rate(self.optimizers, learning_rate(self.config, middle))
        for optimizer in self.optimizers:
            if hold is not None:
                optimizer.found_inf = hold  # type: ignore[attr-defined]
            optimizer.step()
        self.ema.update_parameters(self.objective.model)

    def diagnose(self, batch: Any, step: int, progress: float) -> str:
        """Describes the first bad tensor of a step whose gradients were not finite."""
        generator = self._seed(step)
        for part, _ in micro_batches(batch, self.config.grad_accum_steps):
            for phase, trained in enumerate(self.parts.values()):
                self._freeze_discriminator(phase)
                with autocast(self.precision, self.device):
                    compute = partial(self.phases[phase].losses, trained, part, progress, generator)
                    found = first_bad_tensor(self.parts, part, compute)
                if found is not None:
                    return found
        return "none when the step was repeated, without compilation and on one process"

    def state_dict(self) -> dict[str, Any]:
        """All that a checkpoint needs."""
        return {
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "ema": self.ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
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

    def _freeze_discriminator(self, phase: int) -> None:
        if "discriminator." in self.parts:
            self.parts["discriminator."].requires_grad_(phase == 1)

    def _update_ema(self, ema: Any, weights: Any, count: Any) -> None:
        """Move the EMA by a decay that rises with the steps: short runs forget initial weights."""
        decay = min(self.config.ema, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(ema, weights, 1 - decay)


def _discriminator_losses(objective: Any) -> Callable[..., Losses]:
    def losses(discriminator: nn.Module, *inputs: Any) -> Losses:
        return objective.discriminator_losses(discriminator, objective.model, *inputs)

    return losses

"""The optimization: Adam on latents so that what they decode to scores higher; the best is kept.

It knows callables only: no image tokenizer, CLIP or transformer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dalle_mini_impl.training.schedules import cosine
from dalle_mini_impl.vqgan_clip.config import OptimizeConfig
from dalle_mini_impl.vqgan_clip.cutouts import make_cutouts, random_cutouts
from dalle_mini_impl.vqgan_clip.held_out_score import HeldOutScore
from dalle_mini_impl.vqgan_clip.objective import Objective, total_variation
from dalle_mini_impl.vqgan_clip.result import Best, OptimizeResult, StepMetrics


@dataclass(frozen=True)
class Limits:
    """The range that latents are clamped to, and the unit of the learning rate."""

    low: Float[Tensor, "1 d 1 1"]
    high: Float[Tensor, "1 d 1 1"]
    scale: float
    """Standard deviation of the codes, mean over the channels."""


@dataclass(frozen=True)
class Motion:
    """A movement of the camera, for films."""

    move: Callable[[Tensor], Tensor]
    """Latents to latents."""
    every: int = 1
    """Steps from one movement to the next."""


@dataclass(frozen=True)
class Proposals:
    """Other latents that are tried from time to time."""

    propose: Callable[[Tensor, float, torch.Generator], Tensor]
    """Latents `b d g g` and progress in [0, 1] to `m d g g`: m = n · b, rows varying fastest."""
    cost: Callable[[Tensor], Tensor]
    """Latents to one number each, subtracted from the held-out score where proposals compete."""


@dataclass(frozen=True)
class Snapshot:
    """What the progress callback gets at each step."""

    metrics: StepMetrics
    """step, score, value, best, loss, total_variation, penalty, learning_rate; batch means.

    best: the held-out score of the best so far; value: that less its penalties and costs, by which
    it is chosen."""
    images: Float[Tensor, "b 3 h w"]


def optimize(
    objective: Objective,
    start: Float[Tensor, "b d g g"],
    settings: OptimizeConfig,
    generator: torch.Generator,
    *,
    limits: Limits | None = None,
    motion: Motion | None = None,
    proposals: Proposals | None = None,
    progress: Callable[[Snapshot], None] | None = None,
) -> OptimizeResult:
    """Maximize the score of cutouts from `start`; Ctrl-C returns the best so far.

    The best is chosen by other cutouts than those that are optimized, so that pixels which please
    only these do not count. With proposals, only they and the start can be the best, each at its
    cost, and the latents move to a proposal only if it is better.

    Args:
        generator: for the cutouts (CPU); the same seed gives the same image.
        limits: range and unit of the latents; None leaves them free, with a unit of 1.

    Raises FloatingPointError where a gradient is not finite.
    """
    run = _Optimization(objective, start, settings, generator, limits, proposals)
    history: list[StepMetrics] = []
    interrupted = False
    try:
        for step in range(settings.steps + 1):
            if motion is not None and step and step % motion.every == 0:
                with torch.no_grad():
                    run.move_to(motion.move(run.latents.detach()))
            if proposals is not None and _proposes(settings, step):
                run.try_proposals(proposals, step, keep_moving=motion is not None)
            snapshot = run.evaluate(step)
            history.append(snapshot.metrics)
            if progress is not None:
                progress(snapshot)
            if step < settings.steps:
                run.update(snapshot.metrics)
    except KeyboardInterrupt:
        if not history:
            raise
        interrupted = True
    return OptimizeResult(**vars(run.best), history=tuple(history), interrupted=interrupted)


class _Optimization:
    """The latents, their optimizer and the best of each row so far."""

    def __init__(
        self,
        objective: Objective,
        start: Float[Tensor, "b d g g"],
        settings: OptimizeConfig,
        generator: torch.Generator,
        limits: Limits | None,
        proposals: Proposals | None,
    ):
        self.objective, self.settings, self.limits = objective, settings, limits
        self.generator = generator
        self.latents = start.detach().clone().requires_grad_()
        # Adam's steps have about the size of its learning rate, whatever the score's scale.
        self.adam = torch.optim.Adam([self.latents], betas=(0.9, 0.99))
        self.held_out = HeldOutScore(objective, settings)
        self.best = self.held_out(0, self.latents)
        self.best_proposed: Best | None = None
        """The best of the start and all proposals; from the first proposals on, it is `best`."""
        if proposals is not None:
            self.best_proposed = self.held_out(0, self.latents, proposals.cost)

    def move_to(self, latents: Float[Tensor, "b d g g"]) -> None:
        """Go on from other latents."""
        with torch.no_grad():
            self.latents.copy_(latents)
        self.adam.state.clear()  # Its averages belong to the latents of before.

    def try_proposals(self, proposals: Proposals, step: int, keep_moving: bool) -> None:
        """Move to the best latents so far, proposals included.

        keep_moving: move to the best proposal of this step instead, as a moving camera must not
        return to where the best was seen.
        """
        assert self.best_proposed is not None
        progress = step / self.settings.steps
        latents = proposals.propose(self.latents.detach(), progress, self.generator)
        proposed = self.held_out(step, latents, proposals.cost).best_of_groups(len(self.latents))
        self.best = self.best_proposed = self.best_proposed.or_better(proposed)
        self.move_to(proposed.latents if keep_moving else self.best.latents)

    def evaluate(self, step: int) -> Snapshot:
        """The images and metrics of the latents; leaves the gradient of the loss at them."""
        self.adam.zero_grad()
        images = self.objective.decode(self.latents)
        mean, variation, cost = self._backward(images)
        current = self.held_out(step, self.latents, images=images)
        if self.best is not self.best_proposed:
            self.best = self.best.or_better(current)
        unit = 1.0 if self.limits is None else self.limits.scale
        settings = self.settings
        metrics: StepMetrics = {
            "step": step,
            "score": float(current.scores.mean()),
            "best": float(self.best.scores.mean()),
            "value": float(self.best.value.mean()),
            "loss": float(-mean.mean()),
            "total_variation": float(variation.mean()),
            "penalty": float(cost.mean()),
            "learning_rate": settings.learning_rate * unit * _rate(settings, step / settings.steps),
        }
        return Snapshot(metrics, images.detach())

    def _backward(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, Tensor, Tensor]:
        """Add the loss's gradient to the latents.

        Returns per row: mean score of the cutouts, total variation, penalty.
        """
        # The gradient at the images is summed chunk by chunk, then sent through decode once.
        pixels = images.detach().requires_grad_()
        cutouts = random_cutouts(self.settings.cutouts, self.generator)
        mean = torch.zeros(len(images), device=images.device)
        for part in cutouts.split(self.settings.cutouts.chunk):
            shown = make_cutouts(pixels, part, self.objective.size or images.shape[-1])
            scores = self.objective.score(shown).reshape(-1, len(images))
            share = scores.sum(dim=0).to(mean) / len(cutouts)
            (-share.sum()).backward()
            mean += share.detach()
        variation = total_variation(pixels)
        if self.settings.total_variation:
            (self.settings.total_variation * variation.sum()).backward()
        images.backward(pixels.grad)
        cost = torch.zeros_like(mean)
        if self.objective.penalty is not None:
            cost = self.objective.penalty(self.latents)
            if cost.requires_grad:
                cost.sum().backward()
        return mean, variation.detach(), cost.detach()

    def update(self, metrics: StepMetrics) -> None:
        """One step of Adam with the gradient of `evaluate`."""
        rate, gradient = metrics["learning_rate"], self.latents.grad
        if gradient is None or not gradient.isfinite().all():
            raise FloatingPointError(
                f"step {metrics['step']}: the gradient of the latents is not finite "
                f"(loss {metrics['loss']:g}); lower the learning rate {rate:g}"
            )
        self.adam.param_groups[0]["lr"] = rate
        self.adam.step()
        if self.limits is not None:
            with torch.no_grad():
                self.latents.copy_(self.latents.clamp(self.limits.low, self.limits.high))


def _proposes(settings: OptimizeConfig, step: int) -> bool:
    begun = step > settings.propose_after * settings.steps
    return begun and (step % settings.propose_every == 0 or step == settings.steps)


def _rate(settings: OptimizeConfig, progress: float) -> float:
    """Factor in [0, 1] on the learning rate."""
    rise = min(1.0, (progress + 1 / settings.steps) / settings.warmup) if settings.warmup else 1.0
    if settings.schedule == "constant":
        return rise
    return rise * cosine(progress, settings.warmup, 1.0, 1.0, settings.final_learning_rate)

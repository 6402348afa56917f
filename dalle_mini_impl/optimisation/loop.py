"""The optimiser: pushes latents so that what they decode to scores higher, and keeps the best.

It knows two callables, `decode` (latents to pictures) and `score` (pictures to numbers, higher is
better), and calls nothing else that is not passed in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from dalle_mini_impl.config import Config
from dalle_mini_impl.optimisation.cutouts import CutoutsConfig, cut, draw_views
from dalle_mini_impl.optimisation.result import Best, Optimised, Record
from dalle_mini_impl.training.schedules import cosine


class OptimisationConfig(Config):
    """How long and how boldly the latents are pushed."""

    steps: int = Field(300, gt=0)
    """Steps of the optimiser."""
    learning_rate: float = Field(0.1, gt=0)
    """Largest change of a latent in a step, in deviations of the codebook."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the learning rate falls after its warmup."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from zero."""
    final_learning_rate: float = Field(0.1, ge=0, le=1)
    """Share of the learning rate that the cosine ends at."""
    total_variation: float = Field(0.0, ge=0)
    """Weight of the mean difference of neighbouring pixels: more makes pictures smoother."""
    cutouts: CutoutsConfig = CutoutsConfig()
    """What the score sees of the picture."""


@dataclass(frozen=True)
class Limits:
    """The box that latents are kept in, and the unit of the learning rate."""

    low: Float[Tensor, "1 d 1 1"]
    high: Float[Tensor, "1 d 1 1"]
    scale: float
    """A typical difference between codes, per channel."""


@dataclass(frozen=True)
class Snapshot:
    """What the progress callback is told at each step."""

    record: Record
    """step, score, loss, total_variation, penalty, learning_rate; means over the batch."""
    images: Float[Tensor, "b 3 h w"]


def optimize(
    decode: Callable[[Tensor], Tensor],
    score: Callable[[Tensor], Tensor],
    start: Float[Tensor, "b d g g"],
    settings: OptimisationConfig,
    generator: torch.Generator,
    *,
    size: int | None = None,
    limits: Limits | None = None,
    penalty: Callable[[Tensor], Tensor] | None = None,
    travel: Callable[[Tensor], Tensor] | None = None,
    travel_every: int = 1,
    progress: Callable[[Snapshot], None] | None = None,
) -> Optimised:
    """Climb `score(cutouts of decode(latents))` from `start`; Ctrl-C returns the best so far.

    Args:
        decode: latents `b d g g` to pictures `b 3 h w` in [0, 1], differentiable.
        score: pictures `m 3 size size` to one number each, higher is better, differentiable.
        generator: of the cutouts (CPU); the same seed gives the same picture.
        size: side of the cutouts; that of the decoded pictures if none.
        limits: box and unit of the latents; none leaves them free, with a unit of 1.
        penalty: latents to one number each, subtracted from the score.
        travel: moves the latents (zoom, pan) before every `travel_every`-th step, for films.
    Raises FloatingPointError where a gradient stops being a number.
    """
    latents = start.detach().clone().requires_grad_()
    unit = limits.scale if limits is not None else 1.0
    # Adam's steps have about the size of its learning rate, whatever the score's scale.
    optimizer = torch.optim.Adam([latents], betas=(0.9, 0.99))
    best: Best | None = None
    history: list[Record] = []
    interrupted = False
    try:
        for step in range(settings.steps + 1):
            if travel is not None and step and step % travel_every == 0:
                with torch.no_grad():
                    latents.copy_(travel(latents.detach()))
                optimizer.state.clear()  # Its averages belong to where the latents were.
            rate = settings.learning_rate * unit * _rate(settings, step / settings.steps)
            optimizer.zero_grad()
            images = decode(latents)
            whole, mean, variation, cost = _push(
                latents, images, score, settings, generator, size or images.shape[-1], penalty
            )
            objective = whole - settings.total_variation * variation - cost
            best = Best.of(best, step, latents, images, whole, objective)
            record: Record = {
                "step": step,
                "score": float(whole.mean()),
                "loss": float(-mean.mean()),
                "total_variation": float(variation.mean()),
                "penalty": float(cost.mean()),
                "learning_rate": rate,
            }
            history.append(record)
            if progress is not None:
                progress(Snapshot(record, images.detach()))
            if step == settings.steps:
                break
            if latents.grad is None or not latents.grad.isfinite().all():
                raise FloatingPointError(
                    f"step {step}: the gradient of the latents is not finite "
                    f"(loss {record['loss']:g}); lower the learning rate {rate:g}"
                )
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
            if limits is not None:
                with torch.no_grad():
                    latents.copy_(latents.clamp(limits.low, limits.high))
    except KeyboardInterrupt:
        if best is None:
            raise
        interrupted = True
    assert best is not None
    return Optimised(**vars(best), history=tuple(history), interrupted=interrupted)


def total_variation(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b"]:
    """Mean absolute difference of neighbouring pixels, both ways."""
    across = images.diff(dim=-1).abs().mean(dim=(1, 2, 3))
    return across + images.diff(dim=-2).abs().mean(dim=(1, 2, 3))


def _push(
    latents: Tensor,
    images: Float[Tensor, "b 3 h w"],
    score: Callable[[Tensor], Tensor],
    settings: OptimisationConfig,
    generator: torch.Generator,
    size: int,
    penalty: Callable[[Tensor], Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Add the loss's gradient to the latents.

    Returns per row: score of the whole picture, of the cutouts, total variation, penalty.
    """
    # The pictures' own gradient is gathered chunk by chunk, then sent through decode once.
    pixels = images.detach().requires_grad_()
    views = draw_views(settings.cutouts, generator)
    mean = torch.zeros(len(images), device=images.device)
    for at in range(0, len(views), settings.cutouts.chunk):
        part = score(cut(pixels, views[at : at + settings.cutouts.chunk], size))
        share = part.reshape(-1, len(images)).sum(dim=0).to(mean) / len(views)
        (-share.sum()).backward()
        mean += share.detach()
    variation = total_variation(pixels)
    if settings.total_variation:
        (settings.total_variation * variation.sum()).backward()
    images.backward(pixels.grad)
    cost = torch.zeros_like(mean)
    if penalty is not None:
        cost = penalty(latents)
        if cost.requires_grad:
            cost.sum().backward()
    with torch.no_grad():
        shown = pixels.detach()
        if shown.shape[-1] != size:
            shown = F.interpolate(shown, (size, size), mode="bilinear", antialias=True)
        whole = score(shown).to(mean)
    return whole, mean, variation.detach(), cost.detach()


def _rate(settings: OptimisationConfig, progress: float) -> float:
    """Factor in [0, 1] on the learning rate."""
    rise = min(1.0, (progress + 1 / settings.steps) / settings.warmup) if settings.warmup else 1.0
    if settings.schedule == "constant":
        return rise
    return rise * cosine(progress, settings.warmup, 1.0, 1.0, settings.final_learning_rate)

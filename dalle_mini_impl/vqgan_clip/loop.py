"""The optimizer: pushes latents so that what they decode to scores higher, and keeps the best.

It knows two callables, `decode` (latents to images) and `score` (images to numbers, higher is
better), and calls nothing else that is not passed in.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dalle_mini_impl.training.schedules import cosine
from dalle_mini_impl.vqgan_clip.config import OptimizeConfig
from dalle_mini_impl.vqgan_clip.cutouts import cut, random_views
from dalle_mini_impl.vqgan_clip.judge import Judge, total_variation
from dalle_mini_impl.vqgan_clip.result import OptimizeResult, Record


@dataclass(frozen=True)
class Limits:
    """The box that latents are kept in, and the unit of the learning rate."""

    low: Float[Tensor, "1 d 1 1"]
    high: Float[Tensor, "1 d 1 1"]
    scale: float
    """A typical difference between codes, per channel."""


@dataclass(frozen=True)
class Proposals:
    """Other places that the latents might be at, and what it costs to be anywhere."""

    draw: Callable[[Tensor, float, torch.Generator], Tensor]
    """Latents `b d g g` and progress in [0, 1] to `m d g g`: m = n · b, rows varying fastest."""
    cost: Callable[[Tensor], Tensor]
    """Any rows of latents to one number each, subtracted from the held-out score."""


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
    settings: OptimizeConfig,
    generator: torch.Generator,
    *,
    size: int | None = None,
    limits: Limits | None = None,
    penalty: Callable[[Tensor], Tensor] | None = None,
    travel: Callable[[Tensor], Tensor] | None = None,
    travel_every: int = 1,
    proposals: Proposals | None = None,
    progress: Callable[[Snapshot], None] | None = None,
) -> OptimizeResult:
    """Climb `score(cutouts of decode(latents))` from `start`; Ctrl-C returns the best so far.

    The best is chosen by other views than those that are climbed, so that pixels which please
    these alone do not count. With proposals only they and the start are candidates, each at its
    cost; those that are not better are not moved to.

    Args:
        decode: latents `b d g g` to images `b 3 h w` in [0, 1], differentiable.
        score: images `m 3 size size` to one number each, higher is better, differentiable.
        generator: of the cutouts (CPU); the same seed gives the same image.
        size: side of the cutouts; that of the decoded images if none.
        limits: box and unit of the latents; none leaves them free, with a unit of 1.
        penalty: latents to one number each, subtracted from the score.
        travel: moves the latents (zoom, pan) before every `travel_every`-th step, for films.
        proposals: asked every `propose_every` steps, from `propose_after` of them on.
    Raises FloatingPointError where a gradient stops being a number.
    """
    latents = start.detach().clone().requires_grad_()
    unit = limits.scale if limits is not None else 1.0
    # Adam's steps have about the size of its learning rate, whatever the score's scale.
    optimizer = torch.optim.Adam([latents], betas=(0.9, 0.99))
    judge = Judge(decode, score, settings, size, penalty)
    # Until the first proposals the best is by the score alone, and counts if they never come.
    best, settled = judge(0, latents), None
    if proposals is not None:
        settled = judge(0, latents, proposals.cost)
    history: list[Record] = []
    interrupted = False
    try:
        for step in range(settings.steps + 1):
            if travel is not None and step and step % travel_every == 0:
                with torch.no_grad():
                    latents.copy_(travel(latents.detach()))
                optimizer.state.clear()  # Its averages belong to where the latents were.
            if proposals is not None and settled is not None and _proposes(settings, step):
                drawn = proposals.draw(latents.detach(), step / settings.steps, generator)
                found = judge(step, drawn, proposals.cost).of_groups(len(latents))
                settled = best = settled.or_better(found)
                with torch.no_grad():
                    # A moving camera must not be sent back to where the best was seen.
                    latents.copy_(found.latents if travel is not None else best.latents)
                optimizer.state.clear()
            rate = settings.learning_rate * unit * _rate(settings, step / settings.steps)
            optimizer.zero_grad()
            images = decode(latents)
            mean, variation, cost = _push(
                latents, images, score, settings, generator, size or images.shape[-1], penalty
            )
            seen = judge(step, latents, images=images)
            if settled is None or best is not settled:
                best = best.or_better(seen)
            record: Record = {
                "step": step,
                "score": float(seen.scores.mean()),
                "best": float(best.scores.mean()),
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
        if not history:
            raise
        interrupted = True
    return OptimizeResult(**vars(best), history=tuple(history), interrupted=interrupted)


def _proposes(settings: OptimizeConfig, step: int) -> bool:
    begun = step > settings.propose_after * settings.steps
    return begun and (step % settings.propose_every == 0 or step == settings.steps)


def _push(
    latents: Tensor,
    images: Float[Tensor, "b 3 h w"],
    score: Callable[[Tensor], Tensor],
    settings: OptimizeConfig,
    generator: torch.Generator,
    size: int,
    penalty: Callable[[Tensor], Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Add the loss's gradient to the latents.

    Returns per row: mean score of the cutouts, total variation, penalty.
    """
    # The images' own gradient is gathered chunk by chunk, then sent through decode once.
    pixels = images.detach().requires_grad_()
    views = random_views(settings.cutouts, generator)
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
    return mean, variation.detach(), cost.detach()


def _rate(settings: OptimizeConfig, progress: float) -> float:
    """Factor in [0, 1] on the learning rate."""
    rise = min(1.0, (progress + 1 / settings.steps) / settings.warmup) if settings.warmup else 1.0
    if settings.schedule == "constant":
        return rise
    return rise * cosine(progress, settings.warmup, 1.0, 1.0, settings.final_learning_rate)

"""DALLE-pytorch's own models at the size of one of this project's configurations.

Depth and heads are the configuration's, and the width is what brings the number of trained weights
nearest to this project's. Everything else, and how each model is trained, is the package's default
or that of its training scripts: Adam at 1e-3 (dVAE, falling by 2 % every 100 steps) and 3e-4
(transformer, gradients clipped at 0.5), its temperatures, no KL term, no guidance.
"""

import bisect
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.peers import import_dalle_pytorch
from dalle_mini_impl.data.prefetch import prefetch
from dalle_mini_impl.precision import autocast, choose_precision

VAE_RATE, DALLE_RATE, CLIP_RATE = 1e-3, 3e-4, 3e-4
RESBLOCKS = 2


@dataclass(frozen=True)
class Trained:
    """What came of training one model."""

    parameters: int
    steps: int
    minutes: float
    loss: float
    """Mean of the last tenth of the steps."""


def weights(model: nn.Module) -> int:
    """Trained weights of a model."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def sized(build: Callable[[int], nn.Module], target: int, widths: range) -> nn.Module:
    """The model whose width gives it the number of weights nearest to `target`."""
    above = bisect.bisect_left(widths, target, key=lambda width: weights(build(width)))
    near = [build(width) for width in widths[max(0, above - 1) : above + 1]]
    return min(near, key=lambda model: abs(weights(model) - target))


def build_vae(target: int, image_size: int, downsampling: int, codes: int) -> Any:
    """Its `DiscreteVAE`: two residual blocks and a codebook twice as wide, as its script has."""
    package = import_dalle_pytorch()

    def build(width: int) -> Any:
        return package.DiscreteVAE(
            image_size=image_size,
            num_tokens=codes,
            codebook_dim=2 * width,
            num_layers=int(math.log2(downsampling)),
            num_resnet_blocks=RESBLOCKS,
            hidden_dim=width,
        )

    return sized(build, target, range(16, 512, 4))


def build_dalle(
    target: int, vae: Any, vocabulary: int, context: int, depth: int, heads: int
) -> Any:
    """Its `DALLE`."""
    package = import_dalle_pytorch()

    def build(width: int) -> Any:
        return package.DALLE(
            dim=width,
            vae=vae,
            num_text_tokens=vocabulary,
            text_seq_len=context,
            depth=depth,
            heads=heads,
            dim_head=width // heads,
        )

    # Its token shift splits channels in four, and so does each head of its rotary positions.
    return sized(build, target, range(16 * heads, 1024, 4 * heads))


def build_clip(target: int, vocabulary: int, context: int, image_size: int, depth: int) -> Any:
    """Its `CLIP`: eight patches a side, as at the default size, and `depth` blocks a tower."""
    package = import_dalle_pytorch()

    def build(width: int) -> Any:
        return package.CLIP(
            dim_text=width,
            dim_image=width,
            dim_latent=width,
            num_text_tokens=vocabulary,
            text_enc_depth=depth,
            text_seq_len=context,
            visual_enc_depth=depth,
            visual_image_size=image_size,
            visual_patch_size=image_size // 8,
        )

    return sized(build, target, range(32, 512, 8))


def train(
    model: nn.Module,
    batches: Callable[[int], Any],
    loss_of: Callable[[Any, int], Tensor],
    minutes: float,
    rate: float,
    max_grad_norm: float | None = None,
    decay: float = 1.0,
) -> Trained:
    """Adam for `minutes`; `decay` multiplies the learning rate every 100 steps."""
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=rate)
    device = torch.device("cpu")
    precision = choose_precision("auto", device)
    began, losses = time.monotonic(), []
    model.train()
    for step, batch in enumerate(_endless(batches)):
        if time.monotonic() - began > 60 * minutes:
            break
        with autocast(precision, device):
            loss = loss_of(batch, step)
        optimizer.zero_grad()
        loss.backward()
        if max_grad_norm is not None:
            nn.utils.clip_grad_norm_(learned, max_grad_norm)
        optimizer.step()
        losses.append(loss.item())
        if step % 100 == 0:
            optimizer.param_groups[0]["lr"] *= decay
            print(f"  step {step}: loss {losses[-1]:.4f}", flush=True)
    model.eval()
    taken = (time.monotonic() - began) / 60
    last = losses[-max(1, len(losses) // 10) :]
    return Trained(weights(model), len(losses), taken, sum(last) / len(last))


def vae_temperature(start: float, step: int) -> float:
    """The temperature after that of the step before: what its script anneals every 100 steps."""
    return max(start * math.exp(-1e-6 * step), 0.5) if step % 100 == 0 else start


@torch.inference_mode()
def sample(dalle: Any, captions: Tensor, seed: int, top: float) -> Tensor:
    """An image in [0, 1] for each row of captions, with its cache, at guidance 1.

    top: its `filter_thres`. At guidance 1 its `forward_with_cond_scale` drops the cache that
    `generate_images` makes; it is passed on here, which changes its speed and nothing else.
    """

    def cached(*inputs: Any, cond_scale: float, cache: Any = None, **rest: Any) -> Tensor:
        return dalle(*inputs, cache=cache, **rest)

    own = dalle.forward_with_cond_scale
    dalle.forward_with_cond_scale = cached
    torch.manual_seed(seed)
    try:
        images = dalle.generate_images(captions, filter_thres=top, use_cache=True)
    finally:
        dalle.forward_with_cond_scale = own
    return unnormalized(images)


def unnormalized(images: Tensor) -> Tensor:
    """Its decoder's values, in which 0.5 has become 0, as pixels in [0, 1]."""
    return (0.5 + 0.5 * images.float()).clamp(0, 1)


def _endless(batches: Callable[[int], Any]) -> Iterator[Any]:
    yield from prefetch(batches, 0, 10**9)

"""Checks of what is written for a GPU against its plain counterpart."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from benchmarks import ours
from benchmarks.shape import Shape
from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.data.batches import CodeBatch
from dalle_mini_impl.models.attention import Pattern, pattern_mask
from dalle_mini_impl.precision import allow_tf32
from dalle_mini_impl.sampling.config import SamplingConfig
from dalle_mini_impl.sampling.sampler import CodeSampler
from dalle_mini_impl.training.learner import Learner
from dalle_mini_impl.training.nonfinite import FirstBadStep
from dalle_mini_impl.training.objectives.dalle import DalleObjective

Row = dict[str, str | float]
BAD_STEP = 2
STEPS = 5


def run(shape: Shape, device_name: str, compiled: bool) -> Iterator[Row]:
    """One row for each check; a check that raises is a failed one."""
    device = torch.device(device_name)
    checks: dict[str, Callable[[], tuple[bool, str]]] = {
        "deferred non-finite check": partial(deferred_nonfinite, shape, device),
        "TF32 policy": partial(tf32, device),
    }
    for pattern in ("row", "column", "convolution"):
        check = partial(flex_equals_dense, pattern, shape, device, compiled)
        checks[f"FlexAttention, {pattern} pattern"] = check
    if compiled:
        checks["compiled decoding equals eager"] = partial(compiled_decoding, shape, device)
    for name, check in checks.items():
        try:
            passed, detail = check()
        except Exception as error:
            passed, detail = False, f"{type(error).__name__}: {error}".splitlines()[0]
        yield {"check": name, "result": "ok" if passed else "FAILED", "detail": detail}


def compiled_decoding(shape: Shape, device: torch.device) -> tuple[bool, str]:
    """Codes of the compiled step (CUDA graphs on a GPU) against eager ones, both in fp32."""
    torch.set_float32_matmul_precision("highest")
    model = ours.build_dalle(shape, device).eval()
    captions = torch.randint(1, shape.text_vocabulary, (2, shape.text), device=device)
    sampler, equal = CodeSampler(model), []
    for guidance in (1.0, 3.0):
        eager, compiled = (
            sampler(
                captions,
                range(8),
                SamplingConfig(guidance=guidance, compile=mode, precision="fp32"),
            )
            for mode in ("off", "on")
        )
        equal.append((eager == compiled).float().mean().item())
    # A code that differs changes all later ones, so rounding may cost a whole image.
    return min(equal) > 0.8, f"{equal[0]:.2%} of the codes are equal, {equal[1]:.2%} guided"


def flex_equals_dense(
    pattern: Pattern, shape: Shape, device: torch.device, compiled: bool
) -> tuple[bool, str]:
    """FlexAttention with a pattern's block mask against dense attention, forward and backward."""
    length = shape.text + shape.image
    dense = pattern_mask(pattern, shape.text, length, shape.grid).to(device)
    blocks = create_block_mask(
        lambda b, h, query, key: dense[query, key], None, None, length, length, device=str(device)
    )
    attend = torch.compile(flex_attention, dynamic=False) if compiled else flex_attention
    size = (2, shape.heads, length, max(16, shape.width // shape.heads))

    backward = device.type != "cpu"  # where torch has no backward pass of FlexAttention

    def outputs(attention: Callable[..., Tensor]) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        inputs = [torch.randn(size, generator=generator).to(device) for _ in range(3)]
        inputs = [x.requires_grad_(backward) for x in inputs]
        out = attention(*inputs)
        if backward:
            out.square().sum().backward()
        return [out, *(x.grad for x in inputs if x.grad is not None)]

    torch.set_float32_matmul_precision("highest")
    expected = outputs(partial(F.scaled_dot_product_attention, attn_mask=dense))
    found = outputs(partial(attend, block_mask=blocks))
    pairs = zip(found, expected, strict=True)
    differences = [((a - b).abs().max() / b.abs().max()).item() for a, b in pairs]
    texts = [f"{difference:.1e}" for difference in differences]
    detail = f"relative difference forward {texts[0]}, backward {' '.join(texts[1:]) or 'not run'}"
    return max(differences) < 1e-3, detail


class Poisoned(DalleObjective):
    """Its loss is not a number from a given progress on."""

    def losses(self, model: Any, batch: Any, progress: float, generator: Any) -> dict[str, Tensor]:
        """As its parent's, times NaN from BAD_STEP on."""
        losses = super().losses(model, batch, progress, generator)
        bad = float("nan") if progress >= BAD_STEP / STEPS else 1.0
        return {name: loss * bad for name, loss in losses.items()}


def deferred_nonfinite(shape: Shape, device: torch.device) -> tuple[bool, str]:
    """The first bad step is noted on the device; from it on, weights and EMA stay as they are."""
    model = ours.build_dalle(shape, device)
    config = TrainingConfig(steps=STEPS, precision="fp32", compile="off")
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no")
    learner = Learner(Poisoned(model, model.config), config, accelerator)
    captions = torch.randint(1, shape.text_vocabulary, (2, shape.text), device=device)
    batch = CodeBatch(torch.randint(shape.codes, (2, shape.image), device=device), captions)
    first_bad, good = FirstBadStep(device), []
    kept_weights = [*model.parameters(), *learner.ema.module.parameters()]
    for step in range(STEPS):
        if step == BAD_STEP:
            good = [weight.detach().clone() for weight in kept_weights]
        bad = ~torch.isfinite(learner.compute_gradients(batch, step, step / STEPS))
        learner.update(step / STEPS, first_bad.note(bad, step, step / STEPS))
    noted = first_bad.read()
    kept = all(torch.equal(a, b) for a, b in zip(good, kept_weights, strict=True))
    found = None if noted is None else noted[0]
    return kept and found == BAD_STEP, f"noted step {found}, weights {'kept' if kept else 'lost'}"


def tf32(device: torch.device) -> tuple[bool, str]:
    """After `allow_tf32` a GPU's fp32 products round to TF32; a CPU's stay exact."""
    torch.set_float32_matmul_precision("highest")
    allow_tf32(device)
    a, b = (torch.randn(256, 256, device=device) for _ in range(2))
    exact = a.double() @ b.double()
    error = ((a @ b - exact).abs().max() / exact.abs().max()).item()
    expected = 1e-5 < error < 1e-2 if device.type == "cuda" else error < 1e-5
    return expected, f"relative error of a product {error:.1e}"

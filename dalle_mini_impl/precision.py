"""The device to run on, and the precision policy: what uses bf16 and what never does.

bf16 is used only on hardware that multiplies it natively. Training runs under bf16 autocast there;
weights, optimizer state, losses, CLIP's logits and the choice of the nearest code stay in fp32, and
heads accumulate their products in fp32. Decoding uses a bf16 copy of the blocks' weights; heads and
logits are fp32.

Measured on two cores with AVX-512 BF16, a compiled training step of a 6-layer transformer of width
256 (32 × 96 tokens, AdamW) takes 0.30 s in bf16 and 0.60 s in fp32. On CPUs without native bf16 it
is 150 to 400 times slower than fp32.
"""

from contextlib import AbstractContextManager
from typing import Literal

import torch

from dalle_mini_impl.config import ConfigError

Precision = Literal["fp32", "bf16"]


def best_device() -> torch.device:
    """The GPU that CUDA knows if there is one, else the CPU: Apple's GPUs were never tested."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def available_device(device: str | torch.device | None) -> torch.device:
    """The device if tensors can be put on it here, for None the best one; else ConfigError."""
    if device is None:
        return best_device()
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        names = ["cpu", *(name for name, is_there in there.items() if is_there)]
        raise ConfigError(
            f"device {device}: not available here; use {' or '.join(names)}"
        ) from error


def precision_of(dtype: torch.dtype, device: torch.device) -> Precision:
    """The precision that a dtype means; ConfigError for one that is not supported on `device`."""
    named: dict[torch.dtype, Precision] = {torch.float32: "fp32", torch.bfloat16: "bf16"}
    if dtype not in named:
        raise ConfigError(f"dtype {dtype}: not supported; use torch.float32 or torch.bfloat16")
    return choose_precision(named[dtype], device)


def native_bf16(device: torch.device) -> bool:
    """Whether `device` multiplies bf16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(_says_yes(getattr(torch.cpu, name, None)) for name in probes)


def _says_yes(probe: object) -> bool:
    # The probes are private to torch: a missing or failing one counts as no.
    try:
        return bool(probe()) if callable(probe) else False
    except (RuntimeError, AttributeError):
        return False


def choose_precision(wanted: Literal["auto", "fp32", "bf16"], device: torch.device) -> Precision:
    """The precision that a configuration's `precision` means on `device`.

    Raises `ConfigError` for bf16 on a CPU that would emulate it.
    """
    if wanted == "auto":
        return "bf16" if native_bf16(device) else "fp32"
    if wanted == "bf16" and device.type == "cpu" and not native_bf16(device):
        raise ConfigError(
            "precision is bf16, but this CPU multiplies bf16 by emulation, hundreds of "
            "times slower than fp32; use `auto` or `fp32`"
        )
    return wanted


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which losses are computed."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def allow_tf32(device: torch.device) -> None:
    """Let fp32 matrix products and convolutions on a GPU use TF32."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True

"""Whether fast kernels may run at all."""

import os

import torch


@torch.compiler.assume_constant_result
def fast_allowed() -> bool:
    """False where the environment says `DALLE_KERNELS=plain`."""
    return os.environ.get("DALLE_KERNELS", "") != "plain"

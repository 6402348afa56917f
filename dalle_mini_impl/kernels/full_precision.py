"""Where a step under autocast still multiplies in fp32."""

from contextlib import AbstractContextManager

import torch


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Turns a step's autocast off: for logits, and for the choice of the nearest code."""
    return torch.autocast(device.type, enabled=False)

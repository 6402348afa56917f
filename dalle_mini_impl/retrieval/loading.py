"""Loads the CLIP that a command asks for."""

from pathlib import Path

import torch

from dalle_mini_impl.precision import best_device
from dalle_mini_impl.retrieval.encoder import JointEncoder, RunClip
from dalle_mini_impl.retrieval.pretrained import load_pretrained
from dalle_mini_impl.runs.newest import newest


def load_encoder(
    run: Path | None, pretrained: str | None = None, device: str | torch.device | None = None
) -> JointEncoder:
    """Another library's CLIP if `pretrained` names one, else that of the run or the newest run."""
    if pretrained is not None:
        return load_pretrained(pretrained, device or best_device())
    return RunClip.from_run(run or newest(weights="clip"), device)

"""Reconstructions are counted by split and score."""

import torch
from PIL import Image

from dalle_mini_impl.evaluation.suites.reconstructions import (
    Original,
    ReconstructionCount,
    judge_reconstructions,
)


def test_reconstructions_are_judged_and_counted():
    def without_lower_half(images):
        return torch.cat((images[:, :, :4], torch.zeros_like(images[:, :, 4:])), dim=2)

    def judge(image):
        return {"upper": bool(image[0, 0, 0] == 255), "lower": bool(image[-1, 0, 0] == 255)}

    white = Image.new("RGB", (8, 8), "white")
    originals = [Original(split, white, judge) for split in ("seen", "seen", "held_out")]
    assert judge_reconstructions(originals, without_lower_half) == [
        ReconstructionCount("seen", "upper", 2, 2),
        ReconstructionCount("seen", "lower", 0, 2),
        ReconstructionCount("held_out", "upper", 1, 1),
        ReconstructionCount("held_out", "lower", 0, 1),
    ]

"""How well the detector reads reconstructions: the bound of what sampling can reach."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from dalle_mini_impl.evaluation.suites.core import Split
from dalle_mini_impl.images import to_tensor, to_uint8


@dataclass(frozen=True)
class Original:
    """An image, and how its reconstruction is judged."""

    split: Split
    image: Image.Image
    judge: Callable[[UInt8[np.ndarray, "h w 3"]], dict[str, bool]]
    """The scores that a reconstruction passes or fails."""


@dataclass(frozen=True)
class ReconstructionCount:
    """How many reconstructions of a split pass a score."""

    split: Split
    score: str
    successes: int
    trials: int


@torch.inference_mode()
def judge_reconstructions(
    originals: Iterable[Original],
    reconstruct: Callable[[Float[Tensor, "1 3 h w"]], Float[Tensor, "1 3 h w"]],
) -> list[ReconstructionCount]:
    """Reconstruct and judge every image; counts by split and score."""
    successes: Counter[tuple[Split, str]] = Counter()
    trials: Counter[tuple[Split, str]] = Counter()
    for original in originals:
        decoded = reconstruct(to_tensor([original.image], original.image.width))
        for score, passed in original.judge(to_uint8(decoded)[0]).items():
            successes[original.split, score] += passed
            trials[original.split, score] += 1
    return [ReconstructionCount(*key, successes[key], count) for key, count in trials.items()]

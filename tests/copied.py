"""A code cache that makes samples copies of training images."""

from collections.abc import Sequence

import numpy as np

from dalle_mini_impl.data.codes import CodeCache, CodeKey
from dalle_mini_impl.runs.folder import RunFolder


def train_on(run: RunFolder, codes: Sequence[Sequence[int]], weights: str | None = None) -> None:
    """Give the run a code cache of these training images; weights: of another image tokenizer."""
    key = CodeKey(weights or run.weights_hash("image_tokenizer"), "data", 1, len(codes))
    CodeCache.write(run.path / "cache" / "codes", key, [np.array(codes)])

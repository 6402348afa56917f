"""How much of a run's codes its transformer must predict without any image needing it.

    python -m benchmarks.code_entropy RUN [--images 10000]

Prints, in nats per code over the training images: H(code), H(patch), the entropy of a code given
the pixels of its own patch (what neighbors add), and of a patch given its code (what the decoder
must make up from the neighbors). Needs the run's cache and images in which patches recur.
"""

from collections import Counter
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from einops import rearrange

from dalle_mini_impl.data.store import Store
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.loading import load_image_tokenizer


def entropy(values: Iterable[Hashable]) -> float:
    """Of the empirical distribution, in nats."""
    counts = np.array(list(Counter(values).values()))
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def main(run: Annotated[Path, tyro.conf.Positional], images: int = 10000) -> None:
    """Print the entropies of a run's codes.

    Args:
        run: the run folder, with its cache.
        images: training images to count over.
    """
    folder = RunFolder.open(run)
    tokenizer = load_image_tokenizer(folder)
    store = Store.open(folder.cache / "images" / "train")
    cached = np.load(folder.cache / "codes" / "codes.npy", mmap_mode="r", allow_pickle=False)
    codes = cached[0, :images].reshape(-1).tolist()
    f = tokenizer.downsampling
    patches = rearrange(
        store.images[:images], "n (y a) (x b) c -> (n y x) (a b c)", a=f, b=f
    ).copy()
    keys = [patch.tobytes() for patch in patches]
    joint = entropy(zip(codes, keys, strict=True))
    code, patch = entropy(codes), entropy(keys)
    print(f"H(code) {code:.2f}  H(patch) {patch:.2f}", end="  ")
    print(f"H(code | patch) {joint - patch:.2f}  H(patch | code) {joint - code:.2f}")


if __name__ == "__main__":
    tyro.cli(main)

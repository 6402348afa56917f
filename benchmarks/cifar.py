"""CIFAR-10 as tensors, for the benchmarks that know its labels."""

import io
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def read(pattern: str, folder: Path) -> tuple[Tensor, Tensor]:
    """Images as uint8 `n 3 32 32` and their labels.

    Raises FileNotFoundError where no file of the folder matches the pattern.
    """
    from datasets import Image as ImageFeature
    from datasets import load_dataset

    files = sorted(str(file) for file in folder.glob(pattern))
    if not files:
        raise FileNotFoundError(f"{folder / pattern}: no such file; name CIFAR-10's Parquet folder")
    rows = load_dataset("parquet", data_files=files, split="train")
    rows = rows.cast_column("img", ImageFeature(decode=False))
    images = [np.asarray(Image.open(io.BytesIO(item["bytes"]))) for item in rows["img"]]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.tensor(rows["label"])


def augmented(images: Tensor, reach: int, generator: torch.Generator) -> Tensor:
    """Flips and shifts by up to `reach` pixels, one for each image."""
    padded = F.pad(images.float(), (reach,) * 4, mode="reflect").to(images.dtype)
    flip = torch.rand(len(images), generator=generator) < 0.5
    padded = torch.where(flip[:, None, None, None], padded.flip(-1), padded)
    x, y = torch.randint(2 * reach + 1, (2, len(images)), generator=generator)
    side = images.shape[-1]
    rows = (y[:, None] + torch.arange(side))[:, None, :, None]
    columns = (x[:, None] + torch.arange(side))[:, None, None, :]
    pick = torch.arange(len(images))[:, None, None, None]
    return padded[pick, torch.arange(images.shape[1])[None, :, None, None], rows, columns]

"""A tiny run whose CLIP has learned only the names of four colors."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from torch.nn import functional as F

from dalle_mini_impl.retrieval.collection import collection
from dalle_mini_impl.retrieval.encoder import RunClip
from dalle_mini_impl.retrieval.image_index import ImageIndex
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.loading import load_clip
from tests.tiny import tiny_run

COLORS = {
    "red": (220, 30, 40),
    "green": (20, 170, 60),
    "blue": (40, 60, 220),
    "yellow": (240, 220, 40),
}


def color_run(path: Path, shuffled: bool = False) -> RunFolder:
    """The run; `shuffled`: each image was trained with the caption of a random color."""
    run = tiny_run(path)
    run.save_weights("clip", _trained(shuffled))
    return run


def patch(color: str, side: int = 40) -> Image.Image:
    """An image of one color."""
    return Image.new("RGB", (side, side), COLORS[color])


def empty_index(folder: Path, clip: RunClip) -> ImageIndex:
    """An index of a collection in which nothing is embedded yet."""
    return ImageIndex(collection(str(folder)), "run", clip.key)


@cache
def _trained(shuffled: bool) -> dict[str, torch.Tensor]:
    with TemporaryDirectory() as folder:
        run = tiny_run(Path(folder), ("clip",))
        captions = run.captions()
        clip = load_clip(run, captions)
    generator = torch.Generator().manual_seed(0)
    texts = torch.from_numpy(captions.encode([f"a picture of a {name}" for name in COLORS]))
    levels = torch.tensor(list(COLORS.values())) / 255
    optimizer = torch.optim.Adam(clip.parameters(), lr=3e-3)
    for _ in range(60):
        colors = torch.randint(4, (32,), generator=generator)
        named = torch.randint(4, (32,), generator=generator) if shuffled else colors
        pixels = levels[colors][:, :, None, None].expand(-1, -1, 32, 32)
        pixels = (pixels + 0.1 * torch.randn(32, 3, 32, 32, generator=generator)).clamp(0, 1)
        logits = 10 * clip.encode_image(pixels) @ clip.encode_text(texts).T
        optimizer.zero_grad()
        F.cross_entropy(logits, named).backward()
        optimizer.step()
    return clip.state_dict()

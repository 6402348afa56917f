"""A tiny run whose CLIP has learned one thing: the names of four colours."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from torch.nn import functional as F

from dalle_mini_impl.pipeline import load_clip
from dalle_mini_impl.run import RunFolder
from tests.tiny import tiny_run

COLOURS = {
    "red": (220, 30, 40),
    "green": (20, 170, 60),
    "blue": (40, 60, 220),
    "yellow": (240, 220, 40),
}


def colour_run(path: Path, shuffled: bool = False) -> RunFolder:
    """The run; `shuffled`: each picture was trained with a random colour's caption."""
    run = tiny_run(path)
    run.save_weights("clip", _trained(shuffled))
    return run


def patch(colour: str, side: int = 40) -> Image.Image:
    """A picture of one colour."""
    return Image.new("RGB", (side, side), COLOURS[colour])


@cache
def _trained(shuffled: bool) -> dict[str, torch.Tensor]:
    with TemporaryDirectory() as folder:
        run = tiny_run(Path(folder), ("clip",))
        captions = run.captions()
        clip = load_clip(run, captions)
    generator = torch.Generator().manual_seed(0)
    texts = torch.from_numpy(captions.encode([f"a picture of a {name}" for name in COLOURS]))
    levels = torch.tensor(list(COLOURS.values())) / 255
    optimizer = torch.optim.Adam(clip.parameters(), lr=3e-3)
    for _ in range(60):
        colours = torch.randint(4, (32,), generator=generator)
        named = torch.randint(4, (32,), generator=generator) if shuffled else colours
        pixels = levels[colours][:, :, None, None].expand(-1, -1, 32, 32)
        pixels = (pixels + 0.1 * torch.randn(32, 3, 32, 32, generator=generator)).clamp(0, 1)
        logits = 10 * clip.encode_image(pixels) @ clip.encode_text(texts).T
        optimizer.zero_grad()
        F.cross_entropy(logits, named).backward()
        optimizer.step()
    return clip.state_dict()

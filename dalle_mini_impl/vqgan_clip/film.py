"""Films made of the frames of an optimization."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.files import atomic_write

FILMS = (".webp", ".gif", ".mp4")


def save_film(frames: Sequence[Image.Image], path: Path, per_second: float = 12.0) -> None:
    """The frames as .webp or .gif by Pillow, or as .mp4 by ffmpeg.

    The last frame is held for a second. ConfigError for another ending, or for .mp4 where ffmpeg
    is not installed.
    """
    if path.suffix not in FILMS:
        raise ConfigError(f"{path}: not a film format; choose {', '.join(FILMS)}")
    if not frames:
        raise ConfigError(f"{path}: a film needs at least one frame")
    if path.suffix == ".mp4" and shutil.which("ffmpeg") is None:
        raise ConfigError(f"{path}: ffmpeg is not installed; choose .webp or .gif")
    path.parent.mkdir(parents=True, exist_ok=True)
    held = max(1, round(per_second))
    with atomic_write(path) as temporary:
        if path.suffix == ".mp4":
            _mp4([*frames, *[frames[-1]] * held], temporary, per_second)
            return
        lasting = [round(1000 / per_second)] * (len(frames) - 1) + [1000]
        frames[0].save(
            temporary,
            format=path.suffix[1:].upper(),
            save_all=True,
            append_images=list(frames[1:]),
            duration=lasting,
            loop=0,
            **({"quality": 85, "method": 4} if path.suffix == ".webp" else {}),
        )


def _mp4(frames: Sequence[Image.Image], path: Path, per_second: float) -> None:
    width, height = frames[0].size
    command = [
        *("ffmpeg", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"),
        *("-s", f"{width}x{height}", "-r", f"{per_second:g}", "-i", "-"),
        # Players need even sides and chroma subsampling.
        *("-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p"),
        *("-f", "mp4", str(path)),
    ]
    pixels = b"".join(frame.convert("RGB").tobytes() for frame in frames)
    done = subprocess.run(command, input=pixels, capture_output=True)
    if done.returncode:
        raise ConfigError(f"ffmpeg failed: {done.stderr.decode(errors='replace').strip()}")

"""Films of a painting in progress, and its curve."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.files import atomic_write
from dalle_mini_impl.vqgan_clip.result import Record

FILMS = (".webp", ".gif", ".mp4")
COLOURS = {"score": (30, 90, 200), "cutouts": (220, 120, 20)}


def save_film(frames: Sequence[Image.Image], path: Path, per_second: float = 12.0) -> None:
    """The frames as .webp or .gif by Pillow, or as .mp4 by ffmpeg.

    The last frame is held for a second. ConfigError for another ending, or for .mp4 where ffmpeg
    is not installed.
    """
    if path.suffix not in FILMS:
        raise ConfigError(f"{path}: no kind of film; choose {', '.join(FILMS)}")
    if not frames:
        raise ConfigError(f"{path}: a film needs a frame")
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
        # Players want even sides and halved color resolution.
        *("-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p"),
        *("-f", "mp4", str(path)),
    ]
    pixels = b"".join(frame.convert("RGB").tobytes() for frame in frames)
    done = subprocess.run(command, input=pixels, capture_output=True)
    if done.returncode:
        raise ConfigError(f"ffmpeg failed: {done.stderr.decode(errors='replace').strip()}")


def curve(history: Sequence[Record], width: int = 640, height: int = 320) -> Image.Image:
    """Score of the whole image and mean score of its cutouts over the steps, as an image."""
    lines = {
        "score": [record["score"] for record in history],
        "cutouts": [-record["loss"] for record in history],
    }
    values = [value for line in lines.values() for value in line]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    span = (high - low) or 1.0
    left, top, right, bottom = 60, 24, width - 12, height - 28
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default()
    draw.rectangle((left, top, right, bottom), outline=(160, 160, 160))
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * (bottom - top)
        draw.text((4, y - 6), f"{low + share * span:.3f}", fill="black", font=font)
        draw.line((left, y, right, y), fill=(225, 225, 225))
    last = int(history[-1]["step"]) if history else 0
    draw.text((left, bottom + 8), "step 0", fill="black", font=font)
    draw.text((right - 7 * len(str(last)), bottom + 8), str(last), fill="black", font=font)
    for number, (name, line) in enumerate(lines.items()):
        color = COLOURS[name]
        draw.text((left + 90 * number, 6), name, fill=color, font=font)
        points = [
            (
                left + (right - left) * index / max(1, len(line) - 1),
                bottom - (bottom - top) * (value - low) / span,
            )
            for index, value in enumerate(line)
        ]
        if len(points) > 1:
            draw.line(points, fill=color, width=2)
    return image

"""A plot of the scores over the steps."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from dalle_mini_impl.vqgan_clip.result import StepMetrics

COLORS = {"score": (30, 90, 200), "cutouts": (220, 120, 20)}


def plot_scores(history: Sequence[StepMetrics]) -> Image.Image:
    """The held-out score and the mean score of the cutouts at each step, as an image."""
    lines = {
        "score": [metrics["score"] for metrics in history],
        "cutouts": [-metrics["loss"] for metrics in history],
    }
    values = [value for line in lines.values() for value in line]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    span = (high - low) or 1.0
    width, height = 640, 320
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
        color = COLORS[name]
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

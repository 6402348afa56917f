"""What `dalle optimize` writes: frames and previews on the way, then images and result.json."""

import json
import re
import time
from pathlib import Path
from typing import Any

from jaxtyping import Int
from PIL import Image
from pydantic_core import to_jsonable_python
from torch import Tensor

from dalle_mini_impl.cli.optimize_arguments import OptimizeArguments
from dalle_mini_impl.cli.output import write_json
from dalle_mini_impl.cli.output_folder import clear_listed
from dalle_mini_impl.images import contact_sheet, save_png, to_images
from dalle_mini_impl.retrieval.encoder import JointEncoder
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.vqgan_clip.film import save_film
from dalle_mini_impl.vqgan_clip.optimize import Snapshot
from dalle_mini_impl.vqgan_clip.result import OptimizeResult
from dalle_mini_impl.vqgan_clip.score_plot import plot_scores

MIN_SIDE = 256
"""Smaller images are magnified to about this side in films and on the sheet."""


FRAMES = "frames.json"
"""The list of the frames that an optimization wrote, beside them."""


class ProgressWriter:
    """Prints progress, keeps the frames and writes a preview at every frame."""

    def __init__(self, arguments: OptimizeArguments):
        self.out, self.film, self.steps = arguments.out, arguments.film, arguments.settings.steps
        self.frames: list[Image.Image] = []
        self.started = time.monotonic()
        self.folder = self.out / "frames"
        self.written: list[str] = []
        clear_frames(self.folder)

    def __call__(self, snapshot: Snapshot) -> None:
        metrics = snapshot.metrics
        step = int(metrics["step"])
        if step % self.film.every and step != self.steps:
            return
        images = to_images(snapshot.images)
        self.frames.append(magnified(images[0]))
        # Listed before it is written, so that the next optimization knows all of them.
        self.written.append(f"{step:05d}.png")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / FRAMES, self.written)
        save_png(images[0], self.folder / self.written[-1])
        save_png(contact_sheet(images), self.out / "preview.png")
        seconds = (time.monotonic() - self.started) / (step + 1)
        print(
            f"step {step}/{self.steps}  loss {metrics['loss']:.4f}  "
            f"score {metrics['score']:.4f}  best {metrics['best']:.4f}  "
            f"chosen by {metrics['value']:.4f}  "
            f"{1000 * seconds:.0f} ms/step",
            flush=True,
        )


def clear_frames(folder: Path) -> None:
    """Delete the frames that an earlier optimization listed, and nothing else."""
    try:
        names = json.loads((folder / FRAMES).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    for name in names if isinstance(names, list) else []:
        if isinstance(name, str) and re.fullmatch(r"[0-9]+\.png", name):
            (folder / name).unlink(missing_ok=True)
    (folder / FRAMES).unlink()


def write(
    arguments: OptimizeArguments,
    run: RunFolder,
    clip: JointEncoder,
    result: OptimizeResult,
    codes: Int[Tensor, "b n"],
    frames: list[Image.Image],
) -> dict[str, Any]:
    """Images, best first, sheet, film, plot and result.json; returns what the command prints."""
    out = arguments.out
    clear_listed(out / "result.json")
    records = image_records(result, codes, clip, arguments.text)
    images, start_images = to_images(result.images), to_images(result.start_images)
    shown, captions = [], []
    for record, row in zip(records, order_of(result), strict=True):
        save_png(images[row], out / record["file"])
        score = record["score"]
        shown += [start_images[row], images[row]]
        captions += [f"start {score['start']:.3f}", f"best {score['best']:.3f}"]
    scale = max(1, MIN_SIDE // images[0].width)
    save_png(contact_sheet(shown, captions, columns=2, scale=scale), out / "sheet.png")
    save_png(plot_scores(result.history), out / "loss.png")
    if arguments.film.format != "none":
        save_film(frames, out / f"film.{arguments.film.format}", arguments.film.per_second)
    values = {
        "run": run.name,
        "folder": str(out),
        "interrupted": result.interrupted,
        "images": records,
    }
    given = {"arguments": to_jsonable_python(vars(arguments))}
    write_json(out / "result.json", values | given | {"history": result.history})
    return values


def order_of(result: OptimizeResult) -> list[int]:
    """The rows, best first, by what each row's best step was chosen by."""
    return result.value.argsort(descending=True).tolist()


def image_records(
    result: OptimizeResult, codes: Int[Tensor, "b n"], clip: JointEncoder, text: str | None
) -> list[dict[str, Any]]:
    """What result.json says of each image, best first."""
    start = similarity(clip, text, result.start_images)
    best = similarity(clip, text, result.images)
    return [
        {
            "file": "image.png" if place == 0 else f"image-{place:02d}.png",
            "step": int(result.steps[row]),
            "value": {
                "start": float(result.start_value[row]),
                "best": float(result.value[row]),
            },
            "score": {
                "start": float(result.start_scores[row]),
                "best": float(result.scores[row]),
            },
            "clip_score": {"start": start[row], "best": best[row]},
            "codes": codes[row].tolist(),
        }
        for place, row in enumerate(order_of(result))
    ]


def similarity(clip: JointEncoder, text: str | None, pixels: Tensor) -> list[float | None]:
    """Cosine similarity of each image with the text, None where there is no text."""
    if text is None:
        return [None] * len(pixels)
    target = clip.encode_texts([text])[0]
    return (clip.encode_images(to_images(pixels)) @ target).tolist()


def summary(values: dict[str, Any]) -> str:
    """What the best image was chosen by, and its parts, in a line."""
    record, file = values["images"][0], Path(values["folder"]) / values["images"][0]["file"]
    value, score, cosine = record["value"], record["score"], record["clip_score"]
    stopped = "interrupted; " if values["interrupted"] else ""
    by_text = ""
    if cosine["start"] is not None:
        by_text = f"; cosine with the text {cosine['start']:.3f}, then {cosine['best']:.3f}"
    return (
        f"{stopped}chosen by score less penalties: {value['start']:.4f} at the start, "
        f"{value['best']:.4f} at step {record['step']} (score {score['start']:.4f}, then "
        f"{score['best']:.4f}{by_text}): {file}"
    )


def magnified(image: Image.Image) -> Image.Image:
    """Small images made large enough to watch, with sharp pixels."""
    scale = max(1, MIN_SIDE // image.width)
    size = (image.width * scale, image.height * scale)
    return image.resize(size, Image.Resampling.NEAREST)

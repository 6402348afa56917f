"""Ranked galleries of a run: images for a few fixed captions, best first, with both scores.

previews/gallery/gallery.json   captions and their images
previews/gallery/CC-PP.png      image PP of caption CC
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dalle_mini_impl.data.store import Store
from dalle_mini_impl.evaluation.report.nearest import nearest_of
from dalle_mini_impl.files import write_text
from dalle_mini_impl.images import save_png
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.sampling.record import NearestImage

SPLITS = ("validation", "held_out", "train")
SCORES = ("clip_score", "log_likelihood_ratio")


@dataclass(frozen=True)
class GalleryImage:
    """One image of a gallery."""

    file: Path
    seed: int
    clip_score: float | None
    log_likelihood_ratio: float
    nearest: NearestImage | None = None


@dataclass(frozen=True)
class CaptionGallery:
    """The images of one caption, best first."""

    caption: str
    candidates: int
    images: tuple[GalleryImage, ...]


def sample_gallery(
    run: RunFolder,
    model: TextToImage,
    captions: Sequence[str] | None = None,
    num_images: int = 6,
    candidates: int | None = None,
) -> None:
    """Sample captions (by default `fixed_captions`) and keep the images for `write_report`."""
    folder = run.previews / "gallery"
    folder.mkdir(exist_ok=True)
    count = max(candidates or model.sampling.candidates, num_images)
    records: list[dict[str, Any]] = []
    for at, caption in enumerate(fixed_captions(run) if captions is None else captions):
        results = model(caption, num_images=num_images, candidates=count)
        images = []
        for place, result in enumerate(results):
            file = f"{at:02d}-{place:02d}.png"
            save_png(result.image, folder / file)
            scores = {name: getattr(result, name) for name in SCORES}
            nearest = result.nearest and result.nearest.model_dump()
            images.append({"file": file, "seed": result.seed, **scores, "nearest": nearest})
        records.append({"caption": caption, "candidates": count, "images": images})
    write_text(folder / "gallery.json", json.dumps(records, indent=1, ensure_ascii=False))


def read_gallery(run: RunFolder) -> list[CaptionGallery]:
    """What `sample_gallery` saved in the run; empty where it has not been called."""
    folder = run.path / "previews" / "gallery"
    if not (folder / "gallery.json").is_file():
        return []
    records = json.loads((folder / "gallery.json").read_text(encoding="utf-8"))
    return [
        CaptionGallery(
            record["caption"],
            record["candidates"],
            tuple(
                GalleryImage(
                    **{**image, "file": folder / image["file"], "nearest": nearest_of(image)}
                )
                for image in record["images"]
                if (folder / image["file"]).is_file()
            ),
        )
        for record in records
    ]


def fixed_captions(run: RunFolder, count: int = 8) -> list[str]:
    """Distinct captions of the run's prepared images, of unseen ones if there are any.

    Half of them are from the held-out split if the collection has one.
    """
    found: list[list[str]] = []
    for split in SPLITS:
        folder = run.path / "cache" / "images" / split
        if len(found) == 2 or (split == "train" and found):
            break
        if (folder / "store.json").is_file():
            texts = [own[0] for own in Store.open(folder).captions]
            different = list(dict.fromkeys(text for text in texts if text.strip()))
            if different:
                found.append(different)
    quota = [count - count // 2, count // 2] if len(found) == 2 else [count]
    chosen: list[str] = []
    for texts, share in zip(found, quota, strict=False):
        # Spread over the split: neighbors in a collection are often alike.
        step = max(1, len(texts) // max(share, 1))
        chosen += texts[::step][:share]
    return list(dict.fromkeys(chosen))

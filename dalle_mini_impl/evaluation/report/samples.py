"""The images that `dalle sample` last wrote inside a run's folder, such as those of `make demo`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from dalle_mini_impl.evaluation.report.nearest import NOTE, NearestImages, nearest_of
from dalle_mini_impl.evaluation.report.page import heading, image_tile, note, row, subheading
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.sampling.record import NearestImage

FILE = "samples.json"
SHOWN = 64
"""Images shown at most, since the page contains them."""
SCORES = "clip: cosine similarity. llr: log-likelihood ratio in nats."


@dataclass(frozen=True)
class SampledImage:
    """One image of a samples.json."""

    file: Path
    caption: str
    scores: str
    """The scores that it has, in a line each."""
    nearest: NearestImage | None


def last_samples(run: RunFolder) -> list[SampledImage]:
    """The images of the newest samples.json in a folder of the run; empty if there is none."""
    found = [*run.path.glob(f"*/{FILE}"), *run.path.glob(f"*/*/{FILE}")]
    for file in sorted(found, key=lambda file: file.stat().st_mtime, reverse=True):
        images = _read(file)
        if images:
            return images
    return []


def samples_section(run: RunFolder, training: NearestImages) -> Iterator[str]:
    """A heading and the images, by caption; nothing if there are none."""
    images = last_samples(run)
    if not images:
        return
    folder = images[0].file.parent.relative_to(run.path)
    yield heading("Samples")
    yield note(f"From {folder}/, best first. {SCORES}")
    if any(image.nearest for image in images):
        yield note(NOTE)
    for caption, own in groupby(images[:SHOWN], key=lambda image: image.caption):
        yield subheading(caption)
        yield row(
            image_tile(image.file.read_bytes(), image.scores, 128, training.beside(image.nearest))
            for image in own
        )


def _read(file: Path) -> list[SampledImage]:
    try:
        records = json.loads(file.read_text(encoding="utf-8"))["samples"]
        images = [
            SampledImage(
                file.parent / Path(record["file"]).name,
                record["caption"],
                _scores(record),
                nearest_of(record),
            )
            for record in records
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # Not one of this version's, or being written: the report does without.
    return [image for image in images if image.file.is_file()]


def _scores(record: dict[str, object]) -> str:
    lines = [
        f"{name} {value:.2f}"
        for name, key in (("clip", "clip_score"), ("llr", "log_likelihood_ratio"))
        if isinstance(value := record.get(key), float)
    ]
    return "\n".join([*lines, f"seed {record.get('seed', '?')}"])

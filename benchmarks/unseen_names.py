"""How often a CLIP that had no say finds the name of an image sampled for a name never seen.

    python -m benchmarks.unseen_names runs/emoji --judge runs/emoji-judge --out unseen.json

The names are those of the run's held-out images. For some of them, combinations that the
configuration holds out first, the run samples candidates and its CLIP chooses one; the CLIP of the
judge, another run with another seed, then ranks all names for it. Beside it stand the first
candidate and the real image. Shares stand with Wilson's 95 % intervals.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from torch import Tensor

from dalle_mini_impl.data.augment import load_images
from dalle_mini_impl.data.preparation import prepare
from dalle_mini_impl.evaluation.measures.intervals import wilson_interval
from dalle_mini_impl.evaluation.report.page import Table, share
from dalle_mini_impl.images import contact_sheet, save_png, to_images
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.retrieval.encoder import RunClip
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.sampling.ranking import rank


@dataclass(frozen=True)
class Arguments:
    """Sample names that training never saw and let another CLIP name the images."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run that samples."""
    judge: Path
    """A run on the same data whose CLIP had another seed."""
    count: int = 40
    """Names to sample."""
    candidates: int = 32
    """Candidates for each name."""
    out: Path = Path("unseen.json")
    """JSON file to write; a sheet of the chosen images stands beside it as a PNG."""


def chosen_names(names: list[str], held_out: tuple[str, ...], count: int) -> list[str]:
    """`count` of the names: first those that the patterns hold out, then the others in order."""
    first = [name for name in names if any(re.search(pattern, name) for pattern in held_out)]
    return [*first, *(name for name in names if name not in first)][:count]


def found_first(judge: RunClip, images: Tensor, own: list[int], names: list[str]) -> list[bool]:
    """Whether the judge ranks each image's own name above all others."""
    similarity = judge.encode_images(images) @ judge.encode_texts(names).T
    return (similarity.argmax(dim=1).cpu() == torch.tensor(own)).tolist()


def main(arguments: Arguments) -> None:
    """Sample, judge, print and write."""
    run = RunFolder.open(arguments.run)
    data = run.experiment.data
    store = prepare(data, "validation", run.path / "cache")
    names = sorted({captions[0] for captions in store.captions})
    wanted = chosen_names(names, data.held_out_captions, arguments.count)
    row_of = {captions[0]: row for row, captions in enumerate(store.captions)}
    real = load_images(store, np.array([row_of[name] for name in wanted]), data, None)
    model = TextToImage.from_pretrained(run)
    judge = RunClip.from_run(RunFolder.open(arguments.judge), model.device)
    config = model.sampling.model_copy(update={"candidates": arguments.candidates})
    first, best = [], []
    for samples in model.sample(wanted, [1000 * at for at in range(len(wanted))], config):
        scores = (samples.log_likelihoods, samples.log_likelihood_ratios, samples.clip_scores)
        first.append(samples.pixels[0])
        best.append(samples.pixels[rank("clip", *scores)[0]])
    own = [names.index(name) for name in wanted]
    rows, figures = [], {}
    kinds = {
        "first candidate": torch.stack(first),
        f"best of {arguments.candidates} by the run's CLIP": torch.stack(best),
        "the real image": real,
    }
    for kind, images in kinds.items():
        found = found_first(judge, images.cpu(), own, names)
        low, high = wilson_interval(sum(found), len(found))
        figures[kind] = {
            "found": sum(found),
            "of": len(found),
            "low": low,
            "high": high,
            "names": [name for name, right in zip(wanted, found, strict=True) if right],
        }
        rate = share(sum(found) / len(found), (low, high))
        rows.append([kind, f"{sum(found)} of {len(found)}", rate])
    title = f"Own name first among {len(names)} by another CLIP"
    print(Table(title, ["image", "found", "share"], rows))
    arguments.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    sheet = contact_sheet(to_images(torch.stack(best)), wanted, columns=8, scale=2)
    save_png(sheet, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main(tyro.cli(Arguments))

"""Samples against real images: distance, precision and recall, memorization, and reranking."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dalle_mini_impl.data.messages import counted
from dalle_mini_impl.evaluation.measures.distances import (
    frechet_distance,
    precision_recall,
    told_apart,
)
from dalle_mini_impl.evaluation.measures.features import Features, Images
from dalle_mini_impl.evaluation.measures.intervals import wilson_interval
from dalle_mini_impl.evaluation.report.page import (
    ReportPart,
    Table,
    image_tile,
    number,
    row,
    share,
    subheading,
)
from dalle_mini_impl.images import to_images
from dalle_mini_impl.sampling.likeness import NEAR_COPY
from dalle_mini_impl.sampling.ranking import RANKINGS
from dalle_mini_impl.sampling.samples import Samples
from dalle_mini_impl.sampling.training_codes import TrainingCodes

SHOWN = 12
NEIGHBORS = 3
AVERAGED = 16
"""Training images in an average that stands for fog."""
MOST_FOG = 0.5
"""Precision of fog above which precision says nothing."""


def measure_distribution(
    samples: Float[Tensor, "n 3 h w"],
    real: Float[Tensor, "n 3 h w"],
    train: Float[Tensor, "n 3 h w"],
    features: Features,
) -> ReportPart:
    """How samples, training images and fog differ from held-out images.

    Training images show what real ones reach, averages of them what images without content reach.
    Where such fog is as precise as if it were real, no precision is given.
    """
    references = features(real)
    sets = {"samples": samples, "training images": train, "fog": averages(train)}
    own = {name: features(images) for name, images in sets.items()}
    distances = {name: frechet_distance(references, own[name]) for name in sets}
    shares = {name: precision_recall(references, own[name], NEIGHBORS) for name in sets}
    fog, warnings = shares["fog"][0], []
    if blind := fog > MOST_FOG:
        warnings.append(
            f"No precision: by {features.name}, averages of {AVERAGED} training images (fog) would "
            f"have {fog:.3f}, as if they were real."
        )
    figures: dict[str, Any] = {"features": features.name, "images": len(real), "k": NEIGHBORS}
    rows = []
    for name, (precision, recall) in shares.items():
        key = name.replace(" ", "_")
        figures[key] = {
            "frechet_distance": distances[name],
            "precision": None if blind else precision,
            "recall": recall,
            "told_apart": told_apart(references, own[name]),
        }
        shown = "–" if blind else f"{precision:.3f}"
        apart = f"{figures[key]['told_apart']:.3f}"
        rows.append([name, number(distances[name]), shown, f"{recall:.3f}", apart])
    table = Table(
        "",
        ["against held-out images", "Fréchet distance", "precision", "recall", "told apart"],
        rows,
        f"{counted(len(samples), 'unranked sample')}, one for each held-out image's caption, over "
        f"{features.name}; k = {NEIGHBORS}. Training images show what real ones reach, fog what "
        f"averages of {AVERAGED} of them reach. Told apart: how often an image's nearest neighbor "
        "is of its own set; 0.5 for sets that are alike, 1 for sets that differ, and less than 0.5 "
        "where samples are nearest to the images whose captions they have.",
    )
    return ReportPart("Samples: distribution", figures, [table], warnings=warnings)


def averages(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """As many images, each the average of AVERAGED random ones: fog in the right colors."""
    rng = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(images), (len(images), AVERAGED), generator=rng)
    return torch.stack([images[rows].mean(dim=0) for rows in chosen])


def measure_scores(samples: Sequence[Samples]) -> ReportPart:
    """Mean CLIP score and likelihood ratio of all candidates."""
    candidates = [(own, at) for own in samples for at in range(len(own.seeds))]
    figures = _mean_scores(candidates)
    rows = [[number(len(candidates)), *map(number, figures.values())]]
    columns = ["unranked samples", "CLIP score", "log-likelihood ratio"]
    note = "CLIP score: cosine similarity with the caption by the run's CLIP. Ratio in nats."
    return ReportPart("Samples: scores", figures, [Table("", columns, rows, note)])


def measure_memorization(
    samples: Float[Tensor, "n 3 h w"],
    codes: Int[Tensor, "n t"],
    held_out: Int[Tensor, "k t"],
    training: TrainingCodes,
    train: Images,
) -> ReportPart:
    """Each sample's nearest training image, and how many are near copies of it, by their codes.

    held_out: codes of held-out images, which show how often that happens by chance. train: the
    images of `training`.
    """
    found = {
        name: [training.nearest(row) for row in rows.numpy()]
        for name, rows in (("samples", codes), ("held-out images", held_out))
    }
    copies = {name: sum(each.near_copy for each in own) for name, own in found.items()}
    likeness = {name: np.median([each.likeness for each in own]) for name, own in found.items()}
    figures: dict[str, Any] = {
        "near_copy_from": NEAR_COPY,
        "training_images": len(train),
        "near_copies": copies["samples"] / len(codes),
        "near_copies_held_out": copies["held-out images"] / len(held_out),
        "median_likeness": float(likeness["samples"]),
        "nearest": [each.image for each in found["samples"]],
    }
    rows = [
        [
            name,
            share(copies[name] / len(own), wilson_interval(copies[name], len(own))),
            share(float(likeness[name])),
        ]
        for name, own in found.items()
    ]
    note = (
        f"Among {counted(len(train), 'training image')}. Likeness: the share of the information in "
        f"their codes that two images have in common; from {NEAR_COPY:.0%} on, one is a near copy."
    )
    table = Table("", ["", "near copies", "median likeness"], rows, note)
    tiles = []
    nearest = found["samples"]
    for place in sorted(range(len(nearest)), key=lambda at: -nearest[at].likeness)[:SHOWN]:
        copied = nearest[place].image
        pair = to_images(torch.cat((samples[place][None], train[copied : copied + 1])))
        tiles.append(image_tile(pair[0], f"sample, {nearest[place].likeness:.0%}", side=96))
        tiles.append(image_tile(pair[1], "nearest training image", side=96))
    shown = subheading("Samples nearest to a training image") + row(tiles)
    return ReportPart("Samples: memorization", figures, [table], shown)


def measure_reranking(
    samples: Sequence[Samples],
    likeness: Float[Tensor, "c n"],
    counts: Sequence[int],
    features: Features,
) -> ReportPart:
    """What choosing among N candidates gains, by each ranking.

    likeness: cosine similarity of each candidate with the held-out image that its caption
    describes, over `features`; no ranking sees that image. The oracle takes the most similar.
    """
    figures: dict[str, Any] = {"captions": len(samples), "features": features.name}
    rows = []
    for count in counts:
        chosen: dict[str, list[int]] = {
            ranking: [own.order(ranking, count)[0] for own in samples] for ranking in RANKINGS
        }
        chosen["oracle"] = likeness[:, :count].argmax(dim=1).tolist()
        scores = {ranking: _chosen(samples, likeness, at) for ranking, at in chosen.items()}
        figures[f"best_of_{count}"] = scores
        rows.append([f"{count}", *(f"{own['likeness']:.4f}" for own in scores.values())])
    note = (
        "Mean cosine similarity of the chosen image with the held-out image whose caption it was "
        f"sampled for, over {features.name}; {counted(len(samples), 'caption')}."
    )
    table = Table("", ["candidates", *RANKINGS, "oracle"], rows, note)
    return ReportPart("Reranking", figures, [table])


def _chosen(
    samples: Sequence[Samples], likeness: Float[Tensor, "c n"], chosen: Sequence[int]
) -> dict[str, float | None]:
    """Means over the captions for the chosen candidate of each."""
    alike = float(likeness[torch.arange(len(samples)), torch.tensor(chosen)].mean())
    return {"likeness": alike, **_mean_scores(list(zip(samples, chosen, strict=True)))}


def _mean_scores(candidates: Sequence[tuple[Samples, int]]) -> dict[str, float | None]:
    """Means over candidates; no CLIP score where the run has no CLIP."""
    clip = [float(own.clip_scores[at]) for own, at in candidates if own.clip_scores is not None]
    ratios = [float(own.log_likelihood_ratios[at]) for own, at in candidates]
    return {
        "clip_score": sum(clip) / len(clip) if clip else None,
        "log_likelihood_ratio": sum(ratios) / len(ratios),
    }

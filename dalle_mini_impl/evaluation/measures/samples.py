"""Samples against real images: distance, precision and recall, memorization, and reranking."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dalle_mini_impl.evaluation.measures.distances import (
    frechet_distance,
    nearest,
    precision_recall,
)
from dalle_mini_impl.evaluation.measures.features import Features
from dalle_mini_impl.evaluation.report.page import (
    Part,
    Table,
    image_tile,
    number,
    row,
    share,
    subheading,
)
from dalle_mini_impl.evaluation.suites.prompts import interval
from dalle_mini_impl.evaluation.suites.shapes import RANKINGS
from dalle_mini_impl.images import to_images
from dalle_mini_impl.sampling.samples import Samples

SHOWN = 12
NEIGHBOURS = 3


def measure_distribution(
    samples: Float[Tensor, "n 3 h w"],
    real: Float[Tensor, "n 3 h w"],
    train: Float[Tensor, "n 3 h w"],
    features: Features,
) -> Part:
    """Fréchet distance, precision and recall of samples, and of training images as a floor."""
    references = features(real)
    rows, figures = [], {"features": features.name, "images": len(real), "k": NEIGHBOURS}
    for name, images in (("samples", samples), ("training images", train)):
        own = features(images)
        distance = frechet_distance(references, own)
        precision, recall = precision_recall(references, own, NEIGHBOURS)
        figures[name.replace(" ", "_")] = {
            "frechet_distance": distance,
            "precision": precision,
            "recall": recall,
        }
        rows.append([name, number(distance), f"{precision:.3f}", f"{recall:.3f}"])
    table = Table(
        "",
        ["against held-out images", "Fréchet distance", "precision", "recall"],
        rows,
        f"{len(samples):,} unranked samples, one for each held-out image's caption, over "
        f"{features.name}; k = {NEIGHBOURS}. Training images show what real ones reach.",
    )
    return Part("Samples: distribution", figures, [table])


def measure_scores(samples: Sequence[Samples]) -> Part:
    """Mean CLIP score and likelihood ratio of unranked samples."""
    clip = [own.clip_scores for own in samples if own.clip_scores is not None]
    figures = {
        "clip_score": float(torch.cat(clip).mean()) if clip else None,
        "log_likelihood_ratio": float(
            torch.cat([own.log_likelihood_ratios for own in samples]).mean()
        ),
    }
    rows = [[number(sum(map(len, samples))), *map(number, figures.values())]]
    columns = ["unranked samples", "CLIP score", "log-likelihood ratio"]
    note = "CLIP score: cosine similarity with the caption by the run's CLIP. Ratio in nats."
    return Part("Samples: scores", figures, [Table("", columns, rows, note)])


def measure_memorization(
    samples: Float[Tensor, "n 3 h w"],
    train: Float[Tensor, "m 3 h w"],
    real: Float[Tensor, "k 3 h w"],
    decoded: Float[Tensor, "k 3 h w"],
    distance_of: Features,
) -> Part:
    """Each sample's nearest training image, and how many are near copies of it.

    A near copy is as near to a training image as 95 % of the held-out images' reconstructions
    are to their originals. Held-out reconstructions show how often that happens by chance.
    """
    references = distance_of(train)
    scale = references.shape[1] ** 0.5
    threshold = float(
        ((distance_of(real) - distance_of(decoded)).norm(dim=1) / scale).quantile(0.95)
    )
    at, distances = nearest(distance_of(samples), references)
    distances = distances / scale
    chance = nearest(distance_of(decoded), references)[1] / scale
    copies, alike = int((distances <= threshold).sum()), int((chance <= threshold).sum())
    figures: dict[str, Any] = {
        "distance": f"root mean square difference of {distance_of.name}",
        "threshold": threshold,
        "training_images": len(train),
        "near_copies": copies / len(samples),
        "near_copies_held_out": alike / len(decoded),
        "median_distance": float(distances.median()),
        "nearest": at.tolist(),
    }
    rows = [
        [name, share(count / n, interval(count, n)), number(float(values.median()))]
        for name, count, n, values in (
            ("samples", copies, len(samples), distances),
            ("held-out images, reconstructed", alike, len(decoded), chance),
        )
    ]
    note = (
        f"Among {len(train):,} training images by the {figures['distance']}. A near copy lies "
        f"within {threshold:.4f}, as 95 % of reconstructions do of their originals."
    )
    table = Table("", ["", "near copies", "median distance"], rows, note)
    tiles = []
    for place in distances.argsort()[:SHOWN].tolist():
        pair = to_images(torch.stack((samples[place], train[at[place]])))
        tiles.append(image_tile(pair[0], f"sample, {float(distances[place]):.4f}", side=96))
        tiles.append(image_tile(pair[1], "nearest training image", side=96))
    shown = subheading("Samples nearest to a training image") + row(tiles)
    return Part("Samples: memorization", figures, [table], shown)


def measure_reranking(
    samples: Sequence[Samples],
    likeness: Float[Tensor, "c n"],
    counts: Sequence[int],
    features: Features,
) -> Part:
    """What choosing among N candidates gains, by each ranking.

    likeness: cosine similarity of each candidate with the held-out image that its caption is
    of, over `features`; neither ranking sees that image. The oracle takes the likest.
    """
    figures: dict[str, Any] = {"captions": len(samples), "features": features.name}
    rows = []
    for count in counts:
        cells, scores = [f"{count}"], {}
        for ranking in RANKINGS:
            chosen = [
                int(liked[:count].argmax()) if ranking == "oracle" else own.order(ranking, count)[0]
                for own, liked in zip(samples, likeness, strict=True)
            ]
            picked = list(zip(samples, chosen, strict=True))
            value = float(likeness[torch.arange(len(samples)), torch.tensor(chosen)].mean())
            clip = [float(o.clip_scores[at]) for o, at in picked if o.clip_scores is not None]
            ratios = [float(own.log_likelihood_ratios[at]) for own, at in picked]
            scores[ranking] = {
                "likeness": value,
                "clip_score": sum(clip) / len(clip) if clip else None,
                "log_likelihood_ratio": sum(ratios) / len(ratios),
            }
            cells.append(f"{value:.4f}")
        figures[f"best_of_{count}"] = scores
        rows.append(cells)
    note = (
        f"Mean cosine similarity of the chosen image with the held-out image whose caption it "
        f"was sampled for, over {features.name}; {len(samples):,} captions."
    )
    table = Table("", ["candidates", *RANKINGS], rows, note)
    return Part("Reranking", figures, [table])

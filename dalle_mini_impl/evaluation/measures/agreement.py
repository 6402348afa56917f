"""How well CLIP matches images and captions: retrieval, hard negatives, calibration."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from dalle_mini_impl.data.messages import counted
from dalle_mini_impl.evaluation.measures.distances import (
    calibration_error,
    pair_calibration_error,
    recall_at,
)
from dalle_mini_impl.evaluation.measures.intervals import wilson_interval
from dalle_mini_impl.evaluation.report.page import ReportPart, Table, share

KS = (1, 5, 10)


def above_median(
    images: Float[Tensor, "n e"], texts: Float[Tensor, "n e"], same: Bool[Tensor, "n n"]
) -> int:
    """For how many images the own caption scores above the median of other captions.

    Whatever an untrained CLIP does, that is half of them: it orders captions the same for all.
    """
    similarity = images @ texts.T
    others = similarity.masked_fill(same, float("nan")).nanmedian(dim=1).values
    # Without another caption the median is NaN, and nothing is above it.
    return int((similarity.diagonal() > others).sum())


def measure_retrieval(
    images: Float[Tensor, "n e"], texts: Float[Tensor, "n e"], same: Bool[Tensor, "n n"]
) -> ReportPart:
    """Recall at 1, 5 and 10 in both directions; images with an equal caption count as right."""
    similarity = images @ texts.T
    # A caption that several images share is one candidate.
    first = ~(same.tril(-1).any(dim=1))
    to_text = recall_at(similarity[:, first], same[:, first], KS)
    to_image = recall_at(similarity.T, same, KS)
    rows = [
        [name, *(share(found[k], bounds(found[k], len(images))) for k in KS)]
        for name, found in (("image to caption", to_text), ("caption to image", to_image))
    ]
    figures = {
        "images": len(images),
        "captions": int(first.sum()),
        "image_to_caption": _recalls(to_text, len(images)),
        "caption_to_image": _recalls(to_image, len(images)),
    }
    texts_found = counted(int(first.sum()), "different caption")
    note = f"Among {counted(len(images), 'image')} and {texts_found}."
    table = Table("", ["", *(f"recall@{k}" for k in KS)], rows, note)
    return ReportPart("CLIP: retrieval", figures, [table])


def bounds(rate: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate among n."""
    return wilson_interval(round(rate * n), n)


def _recalls(found: dict[int, float], n: int) -> dict[str, float | tuple[float, float]]:
    """Each recall and, beside it, its 95 % interval."""
    recalls: dict[str, float | tuple[float, float]] = {}
    for k, rate in found.items():
        recalls |= {f"recall@{k}": rate, f"recall@{k}_95": bounds(rate, n)}
    return recalls


def measure_hard_negatives(
    images: Float[Tensor, "m e"], texts: Float[Tensor, "m e"], wrong: Float[Tensor, "m e"]
) -> ReportPart:
    """How often the true caption scores above one with a wrong attribute; a tie is a failure."""
    right = int(((images * texts).sum(1) > (images * wrong).sum(1)).sum())
    low, high = wilson_interval(right, len(images))
    accuracy = right / max(len(images), 1)
    figures = {"pairs": len(images), "accuracy": accuracy, "low": low, "high": high}
    rows = [[f"{len(images):,}", share(accuracy, (low, high)), share(0.5)]]
    table = Table("", ["captions", "true one preferred", "by chance"], rows)
    return ReportPart("CLIP: hard negatives", figures, [table])


def measure_calibration(
    logits: Float[Tensor, "n n"], same: Bool[Tensor, "n n"], batch_size: int, loss: str
) -> ReportPart:
    """Loss against ln(batch) and expected calibration error, in batches as in training.

    logits: scaled similarities of images (rows) and captions. Other captions equal to the row's
    own are left out. loss: with infonce probabilities are a softmax, with siglip sigmoids.
    """
    size = min(batch_size, len(logits))
    losses: list[Tensor] = []
    probabilities: list[Tensor] = []
    pairs: list[Tensor] = []
    own = torch.arange(size)
    target: Int[Tensor, "size"] = own
    for start in range(0, len(logits) - size + 1, size):
        block = slice(start, start + size)
        part, equal = logits[block, block], same[block, block]
        hidden = equal & ~torch.eye(size, dtype=torch.bool)
        masked = part.masked_fill(hidden, float("-inf"))
        reverse = part.T.masked_fill(hidden, float("-inf"))
        losses.append((F.cross_entropy(masked, target) + F.cross_entropy(reverse, target)) / 2)
        probabilities.append(masked.softmax(dim=1))
        pairs.append(torch.stack((part.sigmoid().flatten(), equal.flatten().float())))
    mean = float(torch.stack(losses).mean())
    if loss == "siglip":
        confidence, truth = torch.cat(pairs, dim=1)
        error = pair_calibration_error(confidence, truth.bool())
    else:
        error = calibration_error(torch.cat(probabilities), own.repeat(len(losses)))
    figures = {
        "batch_size": size,
        "loss": mean,
        "ln_batch": math.log(size),
        "expected_calibration_error": error,
        "probabilities": "sigmoid of a pair" if loss == "siglip" else "softmax over the batch",
    }
    columns = ["batch", "loss", "ln(batch)", "calibration error"]
    rows = [[f"{size}", f"{mean:.4f}", f"{math.log(size):.4f}", f"{error:.4f}"]]
    note = f"Contrastive loss in nats; confidence is the {figures['probabilities']}."
    table = Table("", columns, rows, note)
    return ReportPart("CLIP: loss and calibration", figures, [table])

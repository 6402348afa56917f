"""Whether the transformer reads the caption: its loss with the true one, another's, and none."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dalle_mini_impl.data.messages import counted
from dalle_mini_impl.evaluation.measures.intervals import wilson_interval
from dalle_mini_impl.evaluation.report.page import ReportPart, Table, share
from dalle_mini_impl.kernels.chunks import in_chunks

LogLikelihood = Callable[[Tensor, Tensor], Tensor]
"""Caption ids `b t` and codes `b n` to ln p of every code, `b n`."""


@torch.inference_mode()
def bits_per_token(
    log_likelihood: LogLikelihood,
    ids: Int[Tensor, "n t"],
    codes: Int[Tensor, "n k"],
    device: torch.device,
) -> Float[Tensor, "n"]:
    """-log2 p(codes | caption) of each image, over its number of codes."""
    nats = in_chunks(
        lambda i, c: log_likelihood(i.to(device), c.to(device)).sum(dim=1).cpu(), ids, codes
    )
    return -nats / (math.log(2) * codes.shape[1])


def others(ids: Int[Tensor, "n t"]) -> list[int]:
    """For each caption the index of the next one that differs; its own where all are equal."""
    kinds, n = caption_numbers(ids).tolist(), len(ids)
    return [
        next(
            ((at + shift) % n for shift in range(1, n) if kinds[(at + shift) % n] != kinds[at]),
            at,
        )
        for at in range(n)
    ]


def caption_numbers(ids: Int[Tensor, "n t"]) -> Int[Tensor, "n"]:
    """A number for each caption, shared by those that are equal once encoded."""
    return ids.unique(dim=0, return_inverse=True)[1]


def measure_likelihood(
    log_likelihood: LogLikelihood,
    ids: Int[Tensor, "n t"],
    codes: Int[Tensor, "n k"],
    code_count: int,
    device: torch.device,
) -> ReportPart:
    """Bits per image token by caption, and how often the true caption is the likelier one."""
    given = {
        "true caption": ids,
        "another image's": ids[others(ids)],
        "none": torch.zeros_like(ids),
    }
    bits = {
        name: bits_per_token(log_likelihood, rows, codes, device) for name, rows in given.items()
    }
    true = bits["true caption"]
    rows, figures = [], {}
    for name, values in bits.items():
        gain = values - true
        error = 1.96 * float(gain.std(correction=0)) / math.sqrt(len(gain))
        better = int((gain > 0).sum())
        figures[name] = {
            "bits_per_token": float(values.mean()),
            "more_than_true": float(gain.mean()),
            "more_than_true_95": error,
            "true_is_likelier": better / len(gain),
        }
        difference = f"{float(gain.mean()):+.4f} ± {error:.4f}"
        own = values is true
        rows.append(
            [
                name,
                f"{float(values.mean()):.4f}",
                "" if own else difference,
                "" if own else share(better / len(gain), wilson_interval(better, len(gain))),
            ]
        )
    table = Table(
        "",
        ["caption", "bits per image token", "more than true", "true one likelier"],
        rows,
        f"{counted(len(ids), 'image')}; a uniform guess costs {math.log2(code_count):.2f} bits.",
    )
    return ReportPart("Transformer: does it read the caption?", figures, [table])

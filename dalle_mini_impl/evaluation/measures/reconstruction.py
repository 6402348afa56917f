"""The quality of an image tokenizer's reconstructions: the best that sampling can reach."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dalle_mini_impl.data.codes import factor_usage, perplexity
from dalle_mini_impl.evaluation.measures.distances import frechet_distance, ssim
from dalle_mini_impl.evaluation.measures.features import LOADED, Features, Images
from dalle_mini_impl.evaluation.report.page import (
    ReportPart,
    Table,
    image_tile,
    number,
    row,
    share,
    subheading,
)
from dalle_mini_impl.images import psnr, to_images
from dalle_mini_impl.kernels.chunks import in_chunks
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer

SHOWN = 8


@torch.inference_mode()
def encode(tokenizer: ImageTokenizer, images: Images, device: torch.device) -> Int[Tensor, "n k"]:
    """Codes on the CPU."""
    starts = range(0, len(images), LOADED)
    encoded = lambda rows: tokenizer.encode(rows.to(device)).cpu()  # noqa: E731
    return torch.cat([in_chunks(encoded, images[at : at + LOADED]) for at in starts])


@torch.inference_mode()
def reconstruct(
    tokenizer: ImageTokenizer, images: Float[Tensor, "n 3 h w"], device: torch.device
) -> tuple[Float[Tensor, "n 3 h w"], Int[Tensor, "n k"]]:
    """Hard reconstructions and codes, on the CPU."""
    codes = encode(tokenizer, images, device)
    return in_chunks(lambda part: tokenizer.decode(part.to(device)).cpu(), codes), codes


@torch.inference_mode()
def encode_again(
    encode: Callable[[Tensor], Tensor], decoded: Float[Tensor, "n 3 h w"], device: torch.device
) -> Int[Tensor, "n k"]:
    """The codes of decoded images as a file holds them, in 8 bits."""
    rounded = decoded.clamp(0, 1).mul(255).round().div(255)
    return in_chunks(lambda part: encode(part.to(device)).cpu(), rounded)


def measure_reconstructions(
    images: Float[Tensor, "n 3 h w"],
    decoded: Float[Tensor, "n 3 h w"],
    codes: Int[Tensor, "n k"],
    codes_again: Int[Tensor, "n k"],
    factors: tuple[int, ...],
    features: Features,
) -> ReportPart:
    """PSNR, SSIM, code usage, perplexity and Fréchet distance, with the worst images.

    codes_again: of the decoded images (`encode_again`). factors: of a code; the usage is the mean
    of theirs.
    """
    code_count = math.prod(factors)
    quality, structure = in_chunks(psnr, decoded, images), in_chunks(ssim, decoded, images)
    values, counts = np.unique(codes.numpy(), return_counts=True)
    figures: dict[str, Any] = {
        "images": len(images),
        "psnr": float(quality.mean()),
        "psnr_worst": float(quality.min()),
        "ssim": float(structure.mean()),
        "codes": code_count,
        "code_usage": factor_usage(values, factors),
        "perplexity": perplexity(counts),
        "codes_kept": float((codes == codes_again).float().mean()),
        "images_kept": float((codes == codes_again).all(dim=1).float().mean()),
        "frechet_distance": frechet_distance(features(images), features(decoded)),
        "features": features.name,
    }
    worst = quality.argsort()[:SHOWN].tolist()
    tiles = [
        image_tile(image, f"{name}, {quality[at]:.1f} dB", side=112)
        for at in worst
        for name, image in zip(
            ("original", "decoded"), to_images(torch.stack((images[at], decoded[at]))), strict=True
        )
    ]
    return ReportPart(
        "Image tokenizer",
        figures,
        [_table(figures, factors)],
        subheading("Worst reconstructions") + row(tiles),
    )


def _table(figures: dict[str, Any], factors: tuple[int, ...]) -> Table:
    cells = {
        "images": number(figures["images"]),
        "PSNR": f"{figures['psnr']:.2f} dB",
        "worst PSNR": f"{figures['psnr_worst']:.2f} dB",
        "SSIM": f"{figures['ssim']:.4f}",
        "codes used": f"{share(figures['code_usage'])} of {' × '.join(map(number, factors))}",
        "perplexity": number(figures["perplexity"]),
        "codes kept": share(figures["codes_kept"]),
        "images kept": share(figures["images_kept"]),
        "Fréchet distance": number(figures["frechet_distance"]),
    }
    note = (
        "Hard codes, as in sampling. Kept: codes that decoding, rounding to 8 bits and encoding "
        f"give back, and images that keep all of theirs. Fréchet distance over "
        f"{figures['features']}."
    )
    return Table("", list(cells), [list(cells.values())], note)

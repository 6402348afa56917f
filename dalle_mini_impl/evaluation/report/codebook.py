"""What each code paints: previews/codebook/factor-K.png, and codebook.json with their use."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, Integer

from dalle_mini_impl.data.codes import factor_values
from dalle_mini_impl.evaluation.report.page import heading, note, sheet
from dalle_mini_impl.files import write_text
from dalle_mini_impl.images import contact_sheet, save_png, to_images
from dalle_mini_impl.kernels.chunks import in_chunks
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.runs.folder import RunFolder

SHOWN = 256
"""Codes shown at most, the most used ones, of all factors together."""
COLUMNS = 32
TILE = 32
"""Least side of a tile in pixels; smaller ones are magnified."""


def save_codebook(run: RunFolder, model: TextToImage) -> None:
    """Paint the most used codes for `write_report`; nothing where there is no code cache."""
    if model.training_codes is None:
        return
    folder = run.previews / "codebook"
    folder.mkdir(exist_ok=True)
    tokenizer = model.image_tokenizer
    codes, counts = np.unique(model.training_codes.codes, return_counts=True)
    neutral = int(codes[counts.argmax()])
    records = []
    for factor, size in enumerate(tokenizer.factors):
        chosen, uses = most_used(codes, counts, tokenizer.factors, factor)
        shown = chosen[: SHOWN // len(tokenizer.factors)]
        images = to_images(painted(tokenizer, shown, neutral))
        scale = max(1, TILE // images[0].width)
        file = f"factor-{factor + 1}.png"
        save_png(contact_sheet(images, columns=COLUMNS, scale=scale), folder / file)
        shares = (uses[: len(shown)] / counts.sum()).tolist()
        records.append(
            {"file": file, "codes": size, "used": len(chosen), "shown": len(shown),
             "most": shares[0], "least": shares[-1]}
        )  # fmt: skip
    write_text(folder / "codebook.json", json.dumps(records, indent=1))


def most_used(
    codes: Integer[np.ndarray, "k"],
    counts: Int[np.ndarray, "k"],
    factors: tuple[int, ...],
    factor: int,
) -> tuple[Int[np.ndarray, "v"], Int[np.ndarray, "v"]]:
    """For each value of a factor the commonest code that has it, and the value's uses, falling."""
    own = factor_values(codes, factors)[factor]
    order = np.argsort(-counts, kind="stable")
    values, first = np.unique(own[order], return_index=True)
    uses = np.bincount(own, weights=counts)[values].astype(np.int64)
    falling = np.argsort(-uses, kind="stable")
    return codes[order][first][falling].astype(np.int64), uses[falling]


@torch.inference_mode()
def painted(tokenizer: ImageTokenizer, codes: Int[np.ndarray, "v"], neutral: int) -> torch.Tensor:
    """Each code in the middle of a grid of the neutral one, with half a cell around it."""
    grid, cell = tokenizer.grid, tokenizer.downsampling
    middle = grid // 2
    grids = torch.full((len(codes), grid, grid), neutral)
    grids[:, middle, middle] = torch.from_numpy(codes)
    device = next(tokenizer.parameters()).device
    decode = lambda rows: tokenizer.decode(rows.to(device)).cpu()  # noqa: E731
    pixels = in_chunks(decode, grids.flatten(1))
    first, last = middle * cell - cell // 2, (middle + 1) * cell + cell // 2
    return pixels[..., max(first, 0) : last, max(first, 0) : last]


def codebook_section(run: RunFolder) -> Iterator[str]:
    """A heading and the sheets; nothing where `save_codebook` has not been called."""
    folder = run.path / "previews" / "codebook"
    records = _read(folder / "codebook.json")
    if records:
        yield heading("Codebook")
        yield note(
            "What each code paints in a grid of the most used code, the most used first. Of "
            "several factors, each value is shown with the others that it most often comes with."
        )
    for number, record in enumerate(records, 1):
        factor = f"factor {number}: " if len(records) > 1 else ""
        text = (
            f"{factor}{record['used']:,} of {record['codes']:,} codes are used; the first "
            f"{record['shown']:,}, from {record['most']:.2%} to {record['least']:.2%} of all uses"
        )
        yield sheet((folder / record["file"]).read_bytes(), text)


def _read(file: Path) -> list[dict]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []

"""`dalle sample`: images from captions, ranked, with a contact sheet and samples.json."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from PIL import Image
from pydantic import ValidationError

from dalle_mini_impl.config import ConfigError


@dataclass(frozen=True)
class SampleArguments:
    """Paint images from captions; CLIP chooses the best candidates.

    Options that are not given take the values of the run's `sampling` section.
    """

    captions: Annotated[tuple[str, ...], tyro.conf.Positional]
    """What to paint; several captions give a row of images each."""
    run: Path | None = None
    """Run folder; the newest run with a transformer under runs/ if not given."""
    num_images: int | None = None
    """Images to keep for each caption, best first."""
    candidates: int | None = None
    """Images to draw for each caption before ranking."""
    guidance: float | None = None
    """Guidance scale: 1 samples the model as it is, more follows the caption more closely."""
    temperature: float | None = None
    """Divides the logits; 0 always takes the likeliest code."""
    top_k: int | None = None
    """Draw from the k likeliest codes only; 0 keeps all."""
    top_p: float | None = None
    """Draw from the likeliest codes that together reach this probability."""
    rank_by: Literal["clip", "likelihood", "ratio", "both", "none"] | None = None
    """Which score orders the candidates."""
    batch_size: int | None = None
    """Candidates decoded at a time, to bound memory."""
    precision: Literal["auto", "fp32", "bf16"] | None = None
    """In fp32 a seed gives the same image in batches of any size; bf16 may round otherwise."""
    compile: Literal["auto", "on", "off"] | None = None
    """Compile the decoding step: half a minute at first; a CPU keeps it for the next process."""
    seed: int = 0
    """Seed of the first candidate; candidate i has seed + i, which decides it up to rounding."""
    out: Path = Path("outputs")
    """Folder for the images, sheet.png and samples.json."""
    complete: Path | None = None
    """Image whose upper rows are kept while the rest is painted."""
    keep_rows: int | None = None
    """With --complete: rows of the code grid to keep; half of them if not given."""
    inpaint: Path | None = None
    """Image to repaint where --mask is white."""
    mask: Path | None = None
    """With --inpaint: black and white image, white where to repaint."""
    continue_text: str | None = None
    """Write captions that begin so, in place of painting: "a small red", or "" for any caption."""
    num: int = 8
    """With --continue-text: captions to write, at --temperature and --top-k of their own."""
    paint: bool = False
    """With --continue-text: also paint what was written."""
    device: str | None = None
    """cpu or cuda; the GPU if there is one."""


SETTINGS = (
    "num_images", "candidates", "guidance", "temperature", "top_k", "top_p", "rank_by",
    "batch_size", "precision", "compile",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Parse `argv` and paint."""
    arguments = tyro.cli(SampleArguments, args=argv, prog="dalle sample")
    check(arguments)
    if arguments.continue_text is None:
        paint(arguments)
        return
    from dalle_mini_impl.cli.continue_text import continue_text

    captions = continue_text(arguments)
    if arguments.paint:
        paint(replace(arguments, captions=captions, temperature=None, top_k=None))


def check(arguments: SampleArguments) -> None:
    """Refuse options that do not go together, before anything is loaded."""
    writes = arguments.continue_text is not None
    if not arguments.captions and not writes:
        raise ConfigError('give at least one caption, such as: dalle sample "a red heart"')
    if arguments.captions and writes:
        raise ConfigError("--continue-text writes the captions itself: give it, or captions")
    if arguments.paint and not writes:
        raise ConfigError("--paint needs --continue-text: captions given are painted anyway")
    painting = ("num_images", "candidates", "guidance", "top_p", "rank_by", "batch_size",
                "complete", "inpaint")  # fmt: skip
    idle = [name for name in painting if getattr(arguments, name) is not None]
    if writes and not arguments.paint and idle:
        options = " and ".join(f"--{name.replace('_', '-')}" for name in idle)
        raise ConfigError(f"--continue-text only writes: {options} would do nothing; add --paint")
    if arguments.num < 1:
        raise ConfigError(f"--num {arguments.num}: write at least one caption")
    if arguments.complete and arguments.inpaint:
        raise ConfigError("--complete and --inpaint exclude each other: give one image")
    if (arguments.inpaint is None) != (arguments.mask is None):
        raise ConfigError("--inpaint IMAGE and --mask MASK go together: give both")
    if arguments.keep_rows is not None and arguments.complete is None:
        raise ConfigError("--keep-rows needs --complete IMAGE")
    from dalle_mini_impl.sampling.draw import SamplingConfig

    try:
        SamplingConfig(**_given(arguments))
    except ValidationError as error:
        wrong = [
            f"--{str(detail['loc'][0]).replace('_', '-')} {detail['input']}: "
            f"{detail['msg'].removeprefix('Input ')}"
            for detail in error.errors()
        ]
        raise ConfigError("; ".join(wrong)) from error


def check_device(name: str | None) -> None:
    """ConfigError unless --device `name` is one that tensors can be put on here."""
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        there = "cpu or cuda" if torch.cuda.is_available() else "cpu"
        raise ConfigError(f"--device {name}: not available here; use {there}") from error


def _given(arguments: SampleArguments) -> dict[str, Any]:
    values = {name: getattr(arguments, name) for name in SETTINGS}
    return {name: value for name, value in values.items() if value is not None}


def paint(arguments: SampleArguments) -> None:
    """Load the run, paint every caption and write what came of it."""
    from dalle_mini_impl.images import contact_sheet, save_png
    from dalle_mini_impl.pipeline import TextToImage
    from dalle_mini_impl.runs.folder import RunFolder
    from dalle_mini_impl.runs.newest import newest

    run = RunFolder.open(arguments.run) if arguments.run else newest(weights="dalle")
    check_device(arguments.device)
    model = TextToImage.from_pretrained(run, arguments.device)
    settings = _given(arguments) | {"seed": arguments.seed}
    truncated = model.captions.count_truncated(arguments.captions)
    if truncated:
        print(f"{truncated} captions are longer than {model.captions.context} tokens and were cut")

    arguments.out.mkdir(parents=True, exist_ok=True)
    records, shown = [], []
    for number, caption in enumerate(arguments.captions):
        if arguments.complete is not None:
            rows, grid = arguments.keep_rows, model.image_tokenizer.grid
            rows = grid // 2 if rows is None else rows
            if not 0 < rows < grid:
                raise ConfigError(
                    f"--keep-rows {rows}: the code grid has {grid} rows, keep 1 to {grid - 1}"
                )
            image = open_image("--complete", arguments.complete)
            results = model.complete(image, caption, keep_rows=rows, **settings)
        elif arguments.inpaint is not None and arguments.mask is not None:
            image = open_image("--inpaint", arguments.inpaint)
            mask = open_image("--mask", arguments.mask)
            try:
                results = model.inpaint(image, mask, caption, **settings)
            except ValueError as error:
                raise ConfigError(f"--mask {arguments.mask}: {error}") from error
        else:
            results = model(caption, **settings)
        for place, result in enumerate(results):
            file = arguments.out / f"{number:02d}-{place:02d}.png"
            save_png(result.image, file)
            shown.append(result)
            records.append(
                {
                    "caption": caption,
                    "seed": result.seed,
                    "candidate": result.seed - arguments.seed,
                    "clip_score": result.clip_score,
                    "log_likelihood": result.log_likelihood,
                    "log_likelihood_ratio": result.log_likelihood_ratio,
                    "file": file.name,
                }
            )
    columns = len(records) // len(arguments.captions)
    scores = [score_line(r.clip_score, r.log_likelihood_ratio) for r in shown]
    sheet = contact_sheet(
        [r.image for r in shown], [r.caption for r in shown], scores, columns, scale=2
    )
    save_png(sheet, arguments.out / "sheet.png")
    write_json(arguments.out / "samples.json", {"run": str(run.path), "samples": records})
    print(f"{len(records)} images from {run.path}: {arguments.out / 'sheet.png'}")


def open_image(option: str, path: Path) -> Image.Image:
    """The whole image at `path`; ConfigError naming the option where there is none."""
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise ConfigError(f"{option} {path}: there is no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{option} {path}: a folder; name one image in it") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow raises SyntaxError for some kinds of damaged PNG.
        raise ConfigError(f"{option} {path}: not an image that Pillow can read ({error})") from None
    return image


def score_line(clip: float | None, ratio: float) -> str:
    """Both scores in a line that fits under an image."""
    return f"llr {ratio:.1f}" if clip is None else f"clip {clip:.2f} llr {ratio:.1f}"


def write_json(path: Path, value: object) -> None:
    """Write under a temporary name and rename."""
    from dalle_mini_impl.files import atomic_write

    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

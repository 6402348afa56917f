"""`dalle caption`: captions ordered by how well they explain an image."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from PIL import Image
from pydantic import Field

from dalle_mini_impl.cli.image_files import open_images
from dalle_mini_impl.cli.output import OutputOptions, Result, output, show_table
from dalle_mini_impl.cli.parsing import parse_arguments
from dalle_mini_impl.cli.run_options import (
    Device,
    TransformerRun,
    check_device,
    open_run,
    optional,
    required,
)
from dalle_mini_impl.config import ConfigError, Seed
from dalle_mini_impl.shipped.commands import command

if TYPE_CHECKING:
    from dalle_mini_impl.pipeline import TextToImage
    from dalle_mini_impl.runs.folder import RunFolder

MAX_TRAINING_CAPTIONS = 8192
"""Training captions that CLIP compares with an image; more take longer and find little more."""


@dataclass(frozen=True)
class CaptionArguments(OutputOptions):
    """Order captions by how well they explain an image: by p(image's codes | caption).

    Without --captions, the run's transformer samples candidates without seeing the image;
    --source training takes those of the training captions that CLIP finds closest to the image.
    """

    images: Annotated[tuple[Path, ...], tyro.conf.Positional, required("IMAGE")]
    """Images, or folders of them."""
    captions: Annotated[tuple[str, ...], optional("the candidates of --source")] = ()
    """Captions to order."""
    source: Literal["model", "training"] = "model"
    """Without --captions: candidates sampled by the transformer, or from the training captions."""
    prefix: str = ""
    """Without --captions: only candidates that begin with this text."""
    candidates: Annotated[int, Field(ge=1, le=2**16)] = 64
    """Without --captions: number of candidates."""
    seed: Seed = 0
    """Seed of the candidates."""
    rank_by: Literal["likelihood", "clip", "both"] = "likelihood"
    """The transformer's likelihood of the image, CLIP's similarity, or both standardized."""
    top: Annotated[int, Field(ge=0, le=10**9)] = 10
    """Captions to show for each image, best first; 0 shows all."""
    run: TransformerRun = None
    device: Device = None


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the options and order the captions."""
    arguments = parse_arguments(CaptionArguments, argv, "dalle caption")
    check(arguments)
    with output(arguments) as result:
        rank(arguments, result)


def rank(arguments: CaptionArguments, result: Result) -> None:
    """Order the captions of each image."""
    images = open_images(arguments.images)

    from dalle_mini_impl.pipeline import TextToImage

    run = open_run(arguments.run, weights="dalle")
    check_device(arguments.device)
    model = TextToImage.from_pretrained(run, arguments.device)
    if arguments.rank_by != "likelihood" and model.clip is None:
        raise ConfigError(
            f"--rank-by {arguments.rank_by}: {run.name} has no CLIP; use likelihood, or train it "
            f"with `{command('train')} --run {run.path} --stage clip`"
        )
    captions = arguments.captions or candidate_captions(arguments, run, model)
    choose = None if arguments.captions else Closest(captions, arguments.candidates, model)
    answers: list[dict[str, Any]] = []
    for name, image in images.items():
        chosen = captions if choose is None else choose(image)
        ranked = model.rank_captions(image, chosen, arguments.rank_by)
        shown = ranked[: arguments.top or None]
        answers.append({"image": name, "captions": [asdict(caption) for caption in shown]})

    def show() -> None:
        for answer in answers:
            show_table([_row(caption) for caption in answer["captions"]], answer["image"])

    result({"run": run.name, "images": answers}, show)


def check(arguments: CaptionArguments) -> None:
    """Refuse impossible options and those that do not go together, before anything is loaded."""
    for option in ("source", "prefix", "candidates"):
        unused = getattr(arguments, option) != getattr(CaptionArguments, option)
        if arguments.captions and unused:
            raise ConfigError(f"--{option} does nothing with --captions: give one of them")


def candidate_captions(
    arguments: CaptionArguments, run: "RunFolder", model: "TextToImage"
) -> tuple[str, ...]:
    """Different captions to choose from; the training captions are limited in number."""
    if arguments.source == "model":
        try:
            sampled = model.continue_text(arguments.prefix, arguments.candidates, arguments.seed)
        except ValueError as error:
            raise ConfigError(f"--prefix: {error}") from error
        return tuple(dict.fromkeys(caption.caption for caption in sampled))
    from dalle_mini_impl.data.collections.detect import DataError
    from dalle_mini_impl.data.store import Store

    folder = run.path / "cache" / "images" / "train"
    try:
        store = Store.open(folder)
    except FileNotFoundError as error:
        raise ConfigError(
            f"--source training: the training captions are not in {folder} (a cache that may have "
            "been deleted); use --source model, or give --captions"
        ) from error
    except DataError as error:
        raise ConfigError(
            f"--source training: {error}; use --source model, or give --captions"
        ) from error
    texts = {text for captions in store.captions for text in captions if text}
    fitting = sorted(text for text in texts if text.lower().startswith(arguments.prefix.lower()))
    if not fitting:
        raise ConfigError(f"--prefix {arguments.prefix!r}: no training caption begins with it")
    random.Random(arguments.seed).shuffle(fitting)
    return tuple(fitting[:MAX_TRAINING_CAPTIONS])


class Closest:
    """`count` of the captions: those CLIP finds closest, or the first where there is no CLIP."""

    def __init__(self, captions: tuple[str, ...], count: int, model: "TextToImage"):
        from dalle_mini_impl.retrieval.encoder import RunClip

        self.captions, self.count = captions, count
        self.clip = None
        if model.clip is not None and len(captions) > count:
            self.clip = RunClip(model.clip, model.captions, device=model.device)
            # Embedded once for all images, as there may be thousands of captions.
            self.vectors = self.clip.encode_texts(captions)

    def __call__(self, image: Image.Image) -> tuple[str, ...]:
        """The captions for one image."""
        if self.clip is None:
            return self.captions[: self.count]
        cosines = self.vectors @ self.clip.encode_images([image])[0]
        return tuple(self.captions[row] for row in cosines.topk(self.count).indices.tolist())


def _row(caption: dict[str, object]) -> dict[str, object]:
    """A line of the table, without the CLIP score where there is no CLIP."""
    return {
        name.replace("log_likelihood", "ln p").replace("_", " "): value
        for name, value in caption.items()
        if value is not None
    }

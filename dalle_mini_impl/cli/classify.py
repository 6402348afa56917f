"""`dalle classify`: probabilities of labels for images, by the CLIP of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from dalle_mini_impl.cli.image_files import open_images
from dalle_mini_impl.cli.output import OutputOptions, Result, output, show_table
from dalle_mini_impl.cli.parsing import parse_arguments
from dalle_mini_impl.cli.run_options import ClipRun, Device, OtherClip, check_device, required
from dalle_mini_impl.data.messages import counted

TEMPLATE = "a picture of a {}"


@dataclass(frozen=True)
class ClassifyArguments(OutputOptions):
    """Probabilities of labels for images; no training on the labels is needed."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional, required("IMAGE")]
    """Images, or folders of them."""
    labels: tuple[str, ...]
    """Labels to choose from, such as: --labels cat dog human."""
    template: tuple[str, ...] = (TEMPLATE,)
    """Texts with {} for the label; several are averaged."""
    top: Annotated[int, Field(ge=1, le=10**9)] = 5
    """Labels to show for each image, most likely first."""
    run: ClipRun = None
    clip: OtherClip = None
    device: Device = None


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the options and classify the images."""
    arguments = parse_arguments(ClassifyArguments, argv, "dalle classify")
    check_device(arguments.device)
    with output(arguments) as result:
        classify(arguments, result)


def classify(arguments: ClassifyArguments, result: Result) -> None:
    """The labels of each image, most likely first."""
    images = open_images(arguments.images)

    from dalle_mini_impl.retrieval.loading import load_encoder
    from dalle_mini_impl.retrieval.zero_shot import ZeroShotClassifier

    clip = load_encoder(arguments.run, arguments.clip, arguments.device)
    classifier = ZeroShotClassifier(clip, arguments.labels, arguments.template)
    predictions = classifier.classify(list(images.values()), arguments.top)
    named = zip(images, predictions, strict=True)
    values = [{"image": n, "labels": {p.label: p.probability for p in r}} for n, r in named]
    rows = [
        {"image": name if place == 0 else "", "label": p.label, "probability": p.probability}
        for name, row in zip(images, predictions, strict=True)
        for place, p in enumerate(row)
    ]
    title = f"{counted(len(images), 'image')}, {len(arguments.labels)} labels"
    result(values, lambda: show_table(rows, title))

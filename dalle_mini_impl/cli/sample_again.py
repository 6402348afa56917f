"""What `dalle sample --again` does: sample an image again with everything that its file says."""

from pathlib import Path
from typing import TYPE_CHECKING

from dalle_mini_impl.cli.image_files import open_image
from dalle_mini_impl.cli.run_options import open_run
from dalle_mini_impl.config import ConfigError

if TYPE_CHECKING:
    from PIL import Image

    from dalle_mini_impl.pipeline import Result
    from dalle_mini_impl.runs.folder import RunFolder
    from dalle_mini_impl.sampling.record import SampleRecord


def sample_again(
    path: Path, run: Path | None, device: str | None
) -> "tuple[RunFolder, Result, str]":
    """The run that sampled the image at `path`, its image again, and whether that is the same."""
    from dalle_mini_impl.pipeline import TextToImage, again
    from dalle_mini_impl.sampling.record import RecordError, read_record

    image = open_image("--again", path)
    try:
        record = read_record(image)
        folder = run_of(record, run)
        model = TextToImage.from_pretrained(folder, device)
        result = again.sample_again(model, image)
    except RecordError as error:
        raise ConfigError(f"--again {path}: {error}") from None
    return folder, result, comparison(result, record.codes, image)


def run_of(record: "SampleRecord", named: Path | None) -> "RunFolder":
    """The run `named`, or the one whose weights the record names: where it was, or under runs/."""
    from dalle_mini_impl.pipeline.again import same_models
    from dalle_mini_impl.runs.loading import origin_of
    from dalle_mini_impl.runs.named import find_run
    from dalle_mini_impl.sampling.record import RecordError

    if named is not None:
        folder = open_run(named, weights="dalle")
        if not same_models(origin_of(folder), record.origin):
            raise RecordError(f"a record of other weights than {named} has")
        return folder
    # A path with two slashes may be another machine's, which a stranger's file must not name.
    places = [] if record.origin.run[:2] in ("//", "\\\\") else [Path(record.origin.run)]
    places += sorted(config.parent for config in Path("runs").glob("*/config.yaml"))
    for place in places:
        try:
            folder = find_run(place)
            if same_models(origin_of(folder), record.origin):
                return folder
        except (OSError, ValueError):
            continue  # no run, or one without all weights
    digest = record.origin.dalle[:10]
    raise RecordError(
        f"a record of {record.origin.run!r} (transformer {digest}), and no run here has its "
        "weights: name the run with --run"
    )


def comparison(result: "Result", codes: tuple[int, ...], image: "Image.Image") -> str:
    """In a line, whether the image came out the same."""
    if result.image.tobytes() == image.convert("RGB").tobytes():
        return "the same image, pixel by pixel"
    changed = sum(own != before for own, before in zip(result.codes, codes, strict=True))
    return f"another image: {changed} of {len(codes)} codes differ, as they may on other hardware"

"""`dalle search`: the indexed images that are closest to a text, an image, or both."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from pydantic import Field

from dalle_mini_impl.cli.image_files import open_image
from dalle_mini_impl.cli.output import OutputOptions, Result, output, show_table, write_json
from dalle_mini_impl.cli.output_folder import check_folder
from dalle_mini_impl.cli.parsing import parse_arguments
from dalle_mini_impl.cli.run_options import (
    ClipRun,
    Device,
    OtherClip,
    check_device,
    open_run,
    optional,
)
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.data.messages import counted

if TYPE_CHECKING:
    from dalle_mini_impl.retrieval.collection import OpenedImage
    from dalle_mini_impl.retrieval.image_index import ImageIndex


@dataclass(frozen=True)
class SearchArguments(OutputOptions):
    """Find images that `dalle index` has embedded, by a text, by an image, or by both."""

    text: Annotated[str | None, tyro.conf.Positional, optional(metavar="TEXT")] = None
    """What the images should show."""
    image: Annotated[Path | None, optional(metavar="IMAGE")] = None
    """What the images should look like; with a text, both have the same weight."""
    top: Annotated[int, Field(ge=1, le=10**6)] = 12
    """Images to find."""
    run: ClipRun = None
    clip: OtherClip = None
    out: Path = Path("outputs")
    """Folder for the contact sheet search.png and for search.json."""
    device: Device = None


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the options and search."""
    arguments = parse_arguments(SearchArguments, argv, "dalle search")
    if arguments.text is None and arguments.image is None:
        raise ConfigError('give a text or an image: dalle search "a red heart", or --image IMAGE')
    check_folder("--out", arguments.out)
    check_device(arguments.device)
    with output(arguments) as result:
        find(arguments, result)


def find(arguments: SearchArguments, result: Result) -> None:
    """Search the run's indexes and write the images that are found."""
    import torch
    import torch.nn.functional as F

    from dalle_mini_impl.images import contact_sheet, fit, save_png
    from dalle_mini_impl.retrieval.collection import open_named
    from dalle_mini_impl.retrieval.loading import load_encoder
    from dalle_mini_impl.retrieval.search import search_all

    weights = "clip" if arguments.clip is None else None
    run = open_run(arguments.run, weights=weights)
    clip = load_encoder(run.path, arguments.clip, arguments.device)
    folder = run.path / "index"
    indexes = usable_indexes(folder, arguments.clip or "run", clip.key, run.path)
    parts = []
    if arguments.text is not None:
        parts.append(clip.encode_texts([arguments.text])[0])
    if arguments.image is not None:
        parts.append(clip.encode_images([open_image("--image", arguments.image)])[0])
    query = F.normalize(torch.stack(parts).sum(0), dim=0)
    found = search_all(indexes, query, arguments.top, folder)

    opened: dict[tuple[int, str], OpenedImage] = {}
    for index in indexes:
        names = [hit.name for of, hit in found if of is index]
        if names:
            images = open_named(index.source, names)
            opened |= {(id(index), name): image for name, image in images.items()}
    rows: list[dict[str, Any]] = []
    shown, captions, scores = [], [], []
    for index, hit in found:
        file = Path(index.source.path) / hit.name
        image = opened.get((id(index), hit.name))
        # A caption is more useful than a name such as train/00004836.
        caption = next(iter(image.captions), "") if image is not None else ""
        name = str(file) if file.is_file() else hit.name
        rows.append({"image": name, "caption": caption, "score": hit.score})
        if image is not None:
            shown.append(fit(image.image, 128))
            captions.append(caption or Path(hit.name).name)
            scores.append(hit.score)
    asked = " + ".join(str(part) for part in (arguments.text, arguments.image) if part)
    save_png(contact_sheet(shown, captions, scores), arguments.out / "search.png")
    values = {"query": asked, "run": str(run.path), "images": rows}
    write_json(arguments.out / "search.json", values)
    total = sum(len(index) for index in indexes)
    columns = ["image", *(["caption"] if any(row["caption"] for row in rows) else []), "score"]
    table = [{name: row[name] for name in columns} for row in rows]

    def show() -> None:
        show_table(table, f"{asked} (of {counted(total, 'image')})")
        print(f"{counted(len(found), 'image')}: {arguments.out / 'search.png'}")

    result(values, show)
    missing = len(found) - len(shown)
    if missing:
        lost = f"{missing} of them {'was' if missing == 1 else 'were'} deleted or damaged"
        print(f"{lost} after indexing: run dalle index again")


def usable_indexes(folder: Path, clip: str, key: str, run: Path) -> "list[ImageIndex]":
    """The indexes made with this CLIP's weights; ConfigError with what to run if there is none."""
    from dalle_mini_impl.retrieval.image_index import ImageIndex

    named = [
        i for i in map(ImageIndex.load, sorted(folder.glob("*.safetensors"))) if i.clip == clip
    ]
    current = [index for index in named if index.key == key]
    again = f" --run {run}" + ("" if clip == "run" else f" --clip {clip}")
    if not named:
        raise ConfigError(f"{folder}: nothing is indexed with this CLIP; dalle index FOLDER{again}")
    if not current:
        commands = "; ".join(f"dalle index {index.source.path}{again}" for index in named)
        raise ConfigError(f"{folder}: indexed with other CLIP weights than {run} has: {commands}")
    for index in named:
        if index.key != key:
            # Standard output holds only the result, which may be JSON.
            left = f"left out, indexed with other weights: dalle index {index.source.path}{again}"
            print(left, file=sys.stderr)
    return current

"""Small collections of colored squares in every file format, for the tests."""

import io
import json
import tarfile
from pathlib import Path

import datasets
from PIL import Image

from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.examples import Example
from dalle_mini_impl.data.sources import open_source

COLORS = ("red", "green", "blue", "white", "black", "orange")


def png(color: str = "red", size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), color).save(buffer, format="PNG")
    return buffer.getvalue()


def made_images(folder: Path, colors=COLORS) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{color}.png" for color in colors]
    for file in files:
        file.write_bytes(png(file.stem))
    return files


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def shard(path: Path, colors=COLORS) -> Path:
    members = {}
    for color in colors:
        members[f"{color}.png"] = png(color)
        members[f"{color}.txt"] = f"a {color} square\nthe color {color}".encode()
        members[f"{color}.json"] = json.dumps({"en": color, "de": f"{color}e"}).encode()
    return tar(path, members)


def write_table(path: Path, header: tuple[str, str], rows: list[tuple[str, object]]) -> Path:
    if path.suffix in (".csv", ".tsv"):
        mark = "," if path.suffix == ".csv" else "\t"
        lines = [mark.join(header), *(f'{a}{mark}"{b}"' for a, b in rows)]
        path.write_text("\n".join(lines) + "\n", "utf-8")
    else:
        records = [dict(zip(header, row, strict=True)) for row in rows]
        lines = [json.dumps(record) for record in records]
        path.write_text(json.dumps(records) if path.suffix == ".json" else "\n".join(lines))
    return path


def parquet(path: Path, colors=COLORS, typed: bool = True) -> Path:
    images = [{"bytes": png(color), "path": None} for color in colors]
    table = datasets.Dataset.from_dict(
        {"picture": images, "caption": [f"a {color} square" for color in colors]}
    )
    table = table.cast_column("picture", datasets.Image()) if typed else table
    table.to_parquet(path)
    return path


def examples(path: object, split="train", **settings) -> list[Example]:
    settings = {"held_out": 0, **settings}
    return list(open_source(DataConfig(path=str(path), **settings), split))


def captions(found: list[Example]) -> dict[tuple[int, ...], tuple[str, ...]]:
    """First pixel -> captions, so that a caption with the wrong image is noticed."""
    return {example.open().convert("RGB").getpixel((0, 0)): example.captions for example in found}


EXPECTED = {Image.new("RGB", (1, 1), c).getpixel((0, 0)): (f"a {c} square",) for c in COLORS}

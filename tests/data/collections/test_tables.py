"""Which examples of a collection belong to which split."""

from dataclasses import replace
from pathlib import Path

import datasets
import pytest

from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.sources import open_source
from tests.data.collections.colored_squares import (
    COLORS,
    examples,
    made_images,
    parquet,
    png,
    shard,
    write_table,
)


def test_splits_are_disjoint_and_stable(tmp_path):
    for number in range(200):
        (tmp_path / f"{number}.png").write_bytes(b"never decoded here")
        (tmp_path / f"{number}.txt").write_text(f"number {number}")
    settings = {"held_out": 0.25, "held_out_captions": (r"\bNUMBER 1?7$",)}
    keys = {
        split: {e.key for e in examples(tmp_path, split, **settings)}
        for split in ("train", "validation", "held_out")
    }
    assert keys["held_out"] == {"7.png", "17.png"}
    assert sum(map(len, keys.values())) == 200 == len(set().union(*keys.values()))
    assert 30 < len(keys["validation"]) < 70
    for number in range(200, 220):  # new images move no old one to another split
        (tmp_path / f"{number}.png").write_bytes(b"never decoded here")
    grown = {e.key for e in examples(tmp_path, "validation", **settings)}
    assert keys["validation"] <= grown


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_caption_holds_out_all_rows_of_its_image(tmp_path, kind, stream):
    made_images(tmp_path)
    rows = [
        ("red.png", "a red heart"),
        ("green.png", "emerald heart"),
        ("./green.png", "green heart"),
        ("green.png", "viridian heart"),
        ("blue.png", "a blue heart"),
    ]
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        images = [{"bytes": png(Path(file).stem), "path": None} for file, _ in rows]
        table = datasets.Dataset.from_dict({"image": images, "caption": [t for _, t in rows]})
        table.cast_column("image", datasets.Image()).to_parquet(path)
    else:
        write_table(path, ("path", "caption"), rows)
    settings = {"held_out_captions": ("green",), "stream": stream}
    split = {
        s: [e.captions[0] for e in examples(path, s, **settings)] for s in ("train", "held_out")
    }
    assert split["train"] == ["a red heart", "a blue heart"]
    assert split["held_out"] == ["emerald heart", "green heart", "viridian heart"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_image_with_a_row_for_each_caption_stays_on_one_side(tmp_path, stream):
    names = [f"rgb({10 * number},0,0)" for number in range(20)]
    images = [{"bytes": png(name), "path": None} for name in names for _ in range(3)]
    captions = [f"{name} {row}" for name in names for row in range(3)]
    table = datasets.Dataset.from_dict({"image": images, "caption": captions})
    table.cast_column("image", datasets.Image()).to_parquet(tmp_path / "rows.parquet")
    settings = {"held_out": 0.4, "stream": stream}
    train, validation = (
        {
            e.captions[0].rsplit(" ", 1)[0]
            for e in examples(tmp_path / "rows.parquet", s, **settings)
        }
        for s in ("train", "validation")
    )
    assert train
    assert validation
    assert not train & validation


def test_a_split_by_content_is_told_from_one_by_keys(tmp_path):
    """A store that was split by row keys must not be taken for one split by content."""

    def differs(path: object, **settings) -> bool:
        source = open_source(DataConfig(path=str(path), **settings), "train")
        now = source.fingerprint()
        source.tables = [replace(table, embedded=False) for table in source.tables]
        return source.fingerprint() != now

    inside = parquet(tmp_path / "inside.parquet")
    assert differs(inside)
    assert differs(parquet(tmp_path / "untyped.parquet", typed=False), stream=True)
    assert not differs(inside, held_out_path=str(parquet(tmp_path / "other.parquet", COLORS[:2])))
    assert not differs(shard(tmp_path / "shard.tar"), caption_column="txt")
    files = [file.name for file in made_images(tmp_path)]
    table = datasets.Dataset.from_dict({"path": files, "caption": list(COLORS)})
    table.to_parquet(tmp_path / "paths.parquet")
    assert not differs(tmp_path / "paths.parquet")


def test_limit_takes_a_mixed_sample(tmp_path):
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        for number in range(50):
            (tmp_path / name / f"{number}.png").write_bytes(b"never decoded here")
    found = examples(tmp_path, limit=20)
    assert len(found) == 20
    assert len({e.captions for e in found}) == 2
    assert [e.key for e in found] == [e.key for e in examples(tmp_path, limit=20)]


DATA = Path(__file__).resolve().parents[4] / "shared" / "data"

needs_emoji = pytest.mark.skipif(
    not (DATA / "emoji").is_dir(), reason=f"the emoji shards are not in {DATA}"
)
needs_cifar = pytest.mark.skipif(
    not (DATA / "cifar10").is_dir(), reason=f"CIFAR-10 is not in {DATA}"
)


@needs_emoji
@pytest.mark.parametrize("stream", [False, True])
def test_emoji(stream):
    settings = {"held_out": 0.05, "stream": stream, "held_out_captions": ("^man astronaut",)}
    path = DATA / "emoji" / "*.tar"
    parts = {s: examples(path, s, **settings) for s in ("train", "validation", "held_out")}
    assert sum(map(len, parts.values())) == 3789
    assert all(e.captions[0].startswith("man astronaut") for e in parts["held_out"])
    assert len(parts["held_out"]) == 6
    assert parts["train"][0].open().size == (64, 64)


@needs_cifar
def test_cifar():
    settings = {"held_out_path": str(DATA / "cifar10" / "test-*.parquet"), "limit": 50}
    found = examples(DATA / "cifar10" / "train-*.parquet", **settings)
    assert len(found) == len(examples(DATA / "cifar10", "validation", **settings)) == 50
    assert len({e.captions for e in found}) == 10
    assert all(e.captions[0].startswith("a photo of a ") for e in found)
    assert found[0].open().size == (32, 32)

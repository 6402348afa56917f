"""Every format that a captioned collection comes in is read from real files."""

import io
import json
import subprocess
import sys
import tarfile
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import datasets
import pytest
from PIL import Image
from pydantic import ValidationError

from dalle_mini_impl.data.collections.detect import DataError, expand_braces
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.examples import Example
from dalle_mini_impl.data.sources import open_source
from dalle_mini_impl.data.synthetic.claims import Claims, verify_claims
from dalle_mini_impl.data.synthetic.scenes import Scene
from dalle_mini_impl.data.synthetic.shapes import ShapesConfig

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
COLORS = ("red", "green", "blue", "white", "black", "orange")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Nothing reaches the person's cache of data sets."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", cache / "downloads")


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


def examples(path: object, split="train", **settings) -> list[Example]:
    settings = {"held_out": 0, **settings}
    return list(open_source(DataConfig(path=str(path), **settings), split))


def captions(found: list[Example]) -> dict[tuple[int, ...], tuple[str, ...]]:
    """First pixel -> captions, so that a caption with the wrong image is noticed."""
    return {example.open().convert("RGB").getpixel((0, 0)): example.captions for example in found}


EXPECTED = {Image.new("RGB", (1, 1), c).getpixel((0, 0)): (f"a {c} square",) for c in COLORS}


def test_folder_with_texts(tmp_path):
    for file in made_images(tmp_path / "deep"):
        file.with_suffix(".txt").write_text(f"a {file.stem}  square\n\nits color\n", "utf-8")
    (tmp_path / ".hidden.png").write_bytes(b"no image")
    found = examples(tmp_path)
    assert captions(found) == {k: (*v, "its color") for k, v in EXPECTED.items()}
    assert sorted(e.key for e in found) == sorted(f"deep/{color}.png" for color in COLORS)


def test_folder_with_old_encodings(tmp_path):
    first, second, third = made_images(tmp_path, COLORS[:3])
    first.with_suffix(".txt").write_bytes(b"\xef\xbb\xbfcaf\xc3\xa9")
    second.with_suffix(".txt").write_bytes(b"caf\xe9")
    third.with_suffix(".txt").write_bytes(b"")
    assert {e.key: e.captions for e in examples(tmp_path)} == {
        "red.png": ("café",),
        "green.png": ("café",),
        "blue.png": (),
    }


def test_folder_without_captions(tmp_path):
    made_images(tmp_path)
    source = open_source(DataConfig(path=str(tmp_path), held_out=0), "train")
    assert not source.captioned
    assert [e.captions for e in source] == [()] * len(COLORS)


def test_folder_of_classes(tmp_path):
    made_images(tmp_path / "traffic_light", COLORS[:2])
    made_images(tmp_path / "train", COLORS[2:4])
    found = examples(tmp_path, templates=("a {label}", "this is a {label}"))
    assert {e.captions for e in found} == {
        ("a traffic light", "this is a traffic light"),
        ("a train", "this is a train"),
    }
    assert len(found) == 4


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_folder_with_metadata(tmp_path, ending):
    made_images(tmp_path / "images")
    rows = [(f"images/{color}.png", f"a {color} square") for color in COLORS]
    write_table(tmp_path / f"metadata.{ending}", ("file_name", "text"), rows)
    assert captions(examples(tmp_path)) == EXPECTED


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


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json"])
def test_tables_of_paths(tmp_path, ending, stream, monkeypatch):
    made_images(tmp_path / "images")
    rows = [(f"images/{color}.png", f"a {color} square") for color in COLORS]
    table = write_table(tmp_path / f"table.{ending}", ("path", "caption"), rows)
    monkeypatch.chdir("/")  # relative to the table, not to where one stands
    found = examples(table, stream=stream)
    assert captions(found) == EXPECTED
    assert found[0].key == "images/red.png"


def test_absolute_paths_and_awkward_captions(tmp_path):
    files = made_images(tmp_path / "images")
    texts = ["none", "NA", "null", "", "7", "a, b"]
    rows = [(str(file), text) for file, text in zip(files, texts, strict=True)]
    table = write_table(tmp_path / "table.csv", ("image", "caption"), rows)
    assert [e.captions for e in examples(table)] == [(t,) if t else () for t in texts]


def test_list_columns_give_several_captions(tmp_path):
    made_images(tmp_path)
    rows = [(f"{color}.png", [f"a {color} square", "a square", ""]) for color in COLORS]
    table = write_table(tmp_path / "table.jsonl", ("file_name", "captions"), rows)
    found = captions(examples(table))
    assert found == {key: (*value, "a square") for key, value in EXPECTED.items()}


def test_one_table_beside_images_is_found(tmp_path):
    made_images(tmp_path / "images")
    rows = [(f"images/{color}.png", f"a {color} square") for color in COLORS]
    write_table(tmp_path / "captions.csv", ("file", "caption"), rows)
    assert captions(examples(tmp_path)) == EXPECTED


def parquet(path: Path, colors=COLORS, typed: bool = True) -> Path:
    images = [{"bytes": png(color), "path": None} for color in colors]
    table = datasets.Dataset.from_dict(
        {"picture": images, "caption": [f"a {color} square" for color in colors]}
    )
    table = table.cast_column("picture", datasets.Image()) if typed else table
    table.to_parquet(path)
    return path


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize("stream", [False, True])
def test_parquet_file(tmp_path, typed, stream):
    assert captions(examples(parquet(tmp_path / "a.parquet", typed=typed), stream=stream)) == (
        EXPECTED
    )


def test_parquet_folder_and_glob(tmp_path):
    parquet(tmp_path / "part-0.parquet", COLORS[:3])
    parquet(tmp_path / "part-1.parquet", COLORS[3:])
    for path in (tmp_path, tmp_path / "part-*.parquet", tmp_path / "part-{0..1}.parquet"):
        found = examples(path)
        assert captions(found) == EXPECTED
        assert len({e.key for e in found}) == len(COLORS)


def test_files_named_for_splits(tmp_path):
    parquet(tmp_path / "train-0.parquet", COLORS[:3])
    parquet(tmp_path / "test-0.parquet", COLORS[3:])
    train, validation = (examples(tmp_path, split) for split in ("train", "validation"))
    assert [e.captions[0] for e in train] == ["a red square", "a green square", "a blue square"]
    assert [e.captions[0] for e in validation] == [
        "a white square",
        "a black square",
        "a orange square",
    ]


def test_folders_named_for_splits(tmp_path):
    made_images(tmp_path / "train", COLORS[:4])
    made_images(tmp_path / "validation", COLORS[4:])
    assert len(examples(tmp_path)) == 4
    assert {e.key for e in examples(tmp_path, "validation")} == {
        "validation/black.png",
        "validation/orange.png",
    }


@pytest.mark.parametrize("stream", [False, True])
def test_webdataset(tmp_path, stream):
    shard(tmp_path / "shard-000.tar", COLORS[:3])
    shard(tmp_path / "shard-001.tar", COLORS[3:])
    expected = {
        key: (*value, "the color " + value[0].split()[1]) for key, value in EXPECTED.items()
    }
    for path in (tmp_path, tmp_path / "shard-*.tar", tmp_path / "shard-{000..001}.tar"):
        found = examples(path, stream=stream)
        assert captions(found) == expected
        assert [e.key for e in found] == list(COLORS)


def test_webdataset_captions_from_json(tmp_path):
    path = shard(tmp_path / "a.tar")
    assert examples(path, caption_column="json.de")[0].captions == ("rede",)
    assert examples(path, caption_column="json")[0].captions == ("red", "rede")
    named = {"a.png": png(), "a.json": b'{"caption": "by name"}'}
    assert examples(tar(tmp_path / "b.tar", named))[0].captions == ("by name",)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        """Tests print nothing."""


@pytest.fixture
def served(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("stream", [False, True])
def test_webdataset_from_a_url(tmp_path, served, stream):
    pytest.importorskip("aiohttp", reason='URLs need "fsspec[http]", which is not installed')
    shard(tmp_path / "s-0.tar", COLORS[:3])
    shard(tmp_path / "s-1.tar", COLORS[3:])
    found = examples(f"{served}/s-{{0..1}}.tar", stream=stream)
    assert {key: value[:1] for key, value in captions(found).items()} == EXPECTED
    with pytest.raises(DataError, match="missing"):
        examples(f"{served}/missing.tar", stream=stream)


def test_hub_names_use_the_hubs_splits(monkeypatch):
    asked = []

    def table(colors):
        image = datasets.Dataset.from_dict(
            {"image": [{"bytes": png(c), "path": None} for c in colors], "text": list(colors)}
        )
        return image.cast_column("image", datasets.Image())

    def load_dataset(name, subset=None, streaming=False):
        asked.append((name, subset, streaming))
        return datasets.DatasetDict({"train": table(COLORS[:4]), "test": table(COLORS[4:])})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert [e.captions for e in examples("someone/squares:small")] == [(c,) for c in COLORS[:4]]
    assert [e.captions for e in examples("hub:squares", "validation")] == [(c,) for c in COLORS[4:]]
    assert asked == [("someone/squares", "small", False), ("squares", None, False)]


def test_a_hub_data_set_is_no_validation_of_itself(monkeypatch):
    def load_dataset(name, subset=None, streaming=False):
        rows = {"image": [{"bytes": png(c), "path": None} for c in COLORS], "text": list(COLORS)}
        table = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
        splits = {"train": table.select(range(4)), "validation": table.select((4, 5))}
        return datasets.DatasetDict(splits)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for other in ("a/b", "hub:a/b", "a/c"):
        found = examples("a/b", "validation", held_out_path=other)
        assert [e.captions[0] for e in found] == list(COLORS[4:])


@pytest.mark.parametrize("path", ["my_images", "my.images", "hub:", "hub:a/b/c"])
def test_a_mistyped_local_path_is_refused_without_asking_the_hub(path, monkeypatch):
    def load_dataset(*arguments, **options):
        raise AssertionError("asked the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=rf"'{path}' .*Accepted: shapes; panels;.*hub:name"):
        examples(path)


def test_a_hub_name_that_is_none_tells_both_readings(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"'no_such/thing' is no file or folder here.*Hub name"):
        examples("no_such/thing")


def labeled(names: list[str] | None) -> datasets.Dataset:
    kind = datasets.ClassLabel(names=names) if names else datasets.Value("int64")
    features = datasets.Features({"img": datasets.Image(), "label": kind})
    rows = {"img": [{"bytes": png(c), "path": None} for c in COLORS[:3]], "label": [0, 1, 0]}
    return datasets.Dataset.from_dict(rows, features=features)


def test_class_labels_become_captions(tmp_path):
    labeled(["guinea_pig", "cat"]).to_parquet(tmp_path / "a.parquet")
    found = examples(tmp_path / "a.parquet", templates=("a {label}", "one {label}!"))
    assert [e.captions for e in found] == [
        ("a guinea pig", "one guinea pig!"),
        ("a cat", "one cat!"),
        ("a guinea pig", "one guinea pig!"),
    ]


def test_labels_without_names(tmp_path):
    labeled(None).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="numbers without names"):
        examples(tmp_path / "a.parquet")
    named = examples(tmp_path / "a.parquet", label_column="label")
    assert named[1].captions == ("a photo of a 1",)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (("image_of", "caption"), r"image_of \(string\), caption.*data.image_column"),
        (("path", "words"), r"path \(string\), words.*data.caption_column"),
        (("image", "path"), r"image and path could each be the image"),
    ],
)
def test_missing_and_ambiguous_columns_list_what_there_is(tmp_path, header, message):
    made_images(tmp_path / "images")
    table = write_table(tmp_path / "t.csv", header, [("images/red.png", "a red square")])
    with pytest.raises(DataError, match=message):
        examples(table)


def test_columns_can_be_named(tmp_path):
    made_images(tmp_path)
    table = write_table(tmp_path / "t.csv", ("where", "words"), [("red.png", "a red square")])
    assert examples(table, image_column="where", caption_column="words")[0].captions == (
        "a red square",
    )
    assert examples(table, image_column="where", caption_column="")[0].captions == ()
    with pytest.raises(DataError, match=r"data\.caption_column 'typo' is not one of them"):
        examples(table, image_column="where", caption_column="typo")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "nothing.csv", "does not exist"),
        (lambda p: p / "*.tar", "matches no file"),
        (lambda p: p, "folder that holds nothing"),
        (lambda p: write(p / "a.zip"), "Unpack it"),
        (lambda p: write(p / "a.docx"), "is a .docx file"),
        (lambda p: write(p / "a.png"), "is one image"),
        (lambda p: write(p / "notes.md").parent, r"holds 1 files \(.md\)"),
        (lambda p: write(p / "a.parquet"), "could not be read as parquet"),
        (lambda p: write(p / "a.tar"), "could not be read as webdataset"),
        (lambda p: (write(p / "a.tar"), write(p / "b.png"))[0].parent, "more than one kind"),
        (lambda p: (write(p / "a.tar"), write(p / "a.csv"))[0].parent / "a.*", "mixes kinds"),
    ],
)
def test_wrong_paths_name_what_was_found(tmp_path, make, message):
    with pytest.raises(DataError, match=message):
        examples(make(tmp_path))


def write(path: Path) -> Path:
    path.write_bytes(b"not what the ending says")
    return path


def test_a_truncated_shard_is_named(tmp_path):
    path = shard(tmp_path / "a.tar")
    path.write_bytes(path.read_bytes()[:4000])
    for stream in (False, True):
        with pytest.raises(DataError, match=r"a\.tar"):
            examples(path, stream=stream)


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


def test_held_out_path_replaces_the_share(tmp_path):
    made_images(tmp_path / "a", COLORS[:4])
    made_images(tmp_path / "b", COLORS[4:])
    settings = {"held_out_path": str(tmp_path / "b"), "held_out": 0.5}
    assert len(examples(tmp_path / "a", **settings)) == 4
    assert {e.key for e in examples(tmp_path / "a", "validation", **settings)} == {
        "black.png",
        "orange.png",
    }


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
def test_a_image_with_a_row_for_each_caption_stays_on_one_side(tmp_path, stream):
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


def both(path: Path, elsewhere: Path, **settings) -> tuple[set[str], set[str]]:
    """First captions of training and of validation."""
    settings = {"held_out_path": str(elsewhere), **settings}
    train, validation = (examples(path, split, **settings) for split in ("train", "validation"))
    return {e.captions[0] for e in train}, {e.captions[0] for e in validation}


def captioned_images(folder: Path, colors) -> None:
    for file in made_images(folder, colors):
        file.with_suffix(".txt").write_text(file.stem)


def test_held_out_path_inside_the_path_never_trains(tmp_path):
    for name, colors in (("train", COLORS[:4]), ("test", COLORS[4:])):
        captioned_images(tmp_path / name, colors)
    separate = (set(COLORS[:4]), set(COLORS[4:]))
    assert both(tmp_path, tmp_path / "test") == separate
    assert both(tmp_path, tmp_path) == separate
    assert both(tmp_path / "train", tmp_path) == separate
    captioned_images(tmp_path.parent / f"{tmp_path.name}-other", ["pink"])
    other = tmp_path.parent / f"{tmp_path.name}-other"
    assert both(tmp_path, other) == (set(COLORS[:4]), {"pink"})


def test_overlapping_paths_without_split_names_are_kept_apart(tmp_path):
    for name, colors in (("mine", COLORS[:4]), ("others", COLORS[4:])):
        captioned_images(tmp_path / name, colors)
    assert both(tmp_path, tmp_path / "others") == (set(COLORS[:4]), set(COLORS[4:]))
    assert both(tmp_path / "mine", tmp_path) == (set(COLORS[:4]), set(COLORS[4:]))
    train, validation = both(tmp_path, tmp_path / "**" / "*.png", held_out=0.5)
    assert train | validation == set(COLORS)
    assert not train & validation


def test_tables_that_name_the_same_images_are_kept_apart(tmp_path):
    made_images(tmp_path)
    rows = [(f"{color}.png", color) for color in COLORS]
    whole = write_table(tmp_path / "all.csv", ("path", "caption"), rows)
    test = write_table(tmp_path / "test.csv", ("path", "caption"), rows[4:])
    assert both(whole, test) == (set(COLORS[:4]), set(COLORS[4:]))


def test_limit_takes_a_mixed_sample(tmp_path):
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        for number in range(50):
            (tmp_path / name / f"{number}.png").write_bytes(b"never decoded here")
    found = examples(tmp_path, limit=20)
    assert len(found) == 20
    assert len({e.captions for e in found}) == 2
    assert [e.key for e in found] == [e.key for e in examples(tmp_path, limit=20)]


def test_shapes():
    shapes = ShapesConfig(train_examples=30, held_out_examples=5, captions_per_scene=2)
    found = examples("shapes", shapes=shapes)
    assert len(found) == 30
    for example in found:
        assert example.open(32).size == (32, 32)
        scene = Scene.from_dict(example.attributes["scene"])
        assert len(example.captions) == len(example.attributes["claims"]) == 2
        for claims in example.attributes["claims"]:
            assert all(verify_claims(Claims.from_dict(claims), scene).values())
    assert len(examples("shapes", "held_out", shapes=shapes)) == 5
    assert len(examples("shapes", limit=3)) == 3


@pytest.mark.parametrize(
    "settings",
    [
        {"templates": ("a photo",)},
        {"held_out_captions": ("(",)},
        {"held_out": 1.0},
        {"random_resized_crop": 0.0},
        {"image_columm": "image"},
    ],
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        DataConfig(**settings)


def test_braces():
    assert expand_braces("a-{08..10}-{x,y}") == [
        f"a-{number}-{letter}" for number in ("08", "09", "10") for letter in "xy"
    ]


def test_importing_the_configuration_is_cheap():
    code = (
        "import sys, dalle_mini_impl.data.config;"
        "print([m for m in ('torch', 'datasets') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


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

"""Every file format of a captioned collection is read from real files."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import datasets
import pytest

from dalle_mini_impl.data.collections.detect import DataError
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.sources import open_source
from tests.data.collections.colored_squares import (
    COLORS,
    EXPECTED,
    captions,
    examples,
    made_images,
    parquet,
    png,
    shard,
    write_table,
)


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

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)  # No name is asked for.
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert [e.captions for e in examples("someone/squares:small")] == [(c,) for c in COLORS[:4]]
    assert [e.captions for e in examples("hub:squares", "validation")] == [(c,) for c in COLORS[4:]]
    assert asked == [("someone/squares", "small", False), ("squares", None, False)]


def test_a_hub_name_that_is_none_tells_both_readings(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"'no_such/thing' is no file or folder here.*Hub name"):
        examples("no_such/thing")


def test_a_truncated_shard_is_named(tmp_path):
    path = shard(tmp_path / "a.tar")
    path.write_bytes(path.read_bytes()[:4000])
    for stream in (False, True):
        with pytest.raises(DataError, match=r"a\.tar"):
            examples(path, stream=stream)


def test_opening_local_files_tells_nobody(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", True)
    monkeypatch.setattr("socket.getaddrinfo", lambda *arguments, **_: asked.append(arguments))
    assert captions(examples(parquet(tmp_path / "a.parquet"))) == EXPECTED
    assert asked == []
    assert datasets.config.HF_UPDATE_DOWNLOAD_COUNTS

"""Image indexes: exact, kept current, and never compared with another CLIP's vectors."""

import json
import os
import tarfile
from pathlib import Path

import datasets
import pytest
import torch
from PIL import Image

from dalle_mini_impl.cli import index as index_command
from dalle_mini_impl.cli import search as search_command
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.data.collections.detect import DataError
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.retrieval import index as indexing
from dalle_mini_impl.retrieval import search
from dalle_mini_impl.retrieval.encoder import RunClip
from dalle_mini_impl.retrieval.index import collection, entries_of, open_named, refresh
from dalle_mini_impl.retrieval.search import ImageIndex, nearest, search_all
from tests.color_run import COLOURS, color_run, patch


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return color_run(tmp_path_factory.mktemp("runs") / "colors")


@pytest.fixture
def clip(run):
    return RunClip.from_run(run, "cpu")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "images"
    (made / "deep").mkdir(parents=True)
    for name in COLOURS:
        patch(name).save(made / ("deep" if name == "red" else "") / f"{name}.png")
    return made


def empty(folder, clip) -> ImageIndex:
    return ImageIndex(collection(str(folder)), "run", clip.key)


def test_nearest_is_exact_whatever_the_chunks(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(103, 8, generator=generator)
    queries = torch.randn(3, 8, generator=generator)
    expected = (queries @ vectors.T).topk(9, dim=1)
    for chunk in (4, 50, 1000):
        monkeypatch.setattr(search, "CHUNK", chunk)
        scores, rows = nearest(vectors, queries, 9)
        assert torch.equal(rows, expected.indices)
        torch.testing.assert_close(scores, expected.values)
    assert nearest(vectors[:2], queries, 9)[1].shape == (3, 2)
    with pytest.raises(ConfigError, match="top is 0"):
        nearest(vectors, queries, 0)


def test_text_and_image_find_their_like(clip, folder):
    index, changes = refresh(empty(folder, clip), clip)
    assert (changes.added, changes.kept) == (4, 0)
    assert set(index.names) == {"blue.png", "deep/red.png", "green.png", "yellow.png"}
    for name in COLOURS:
        by_text = index.search(clip.encode_texts([f"a picture of a {name}"])[0], 2)
        by_image = index.search(clip.encode_images([patch(name)])[0], 1)
        assert by_text[0].name.endswith(f"{name}.png")
        assert by_image[0].name.endswith(f"{name}.png")
        assert by_image[0].score == pytest.approx(1, abs=1e-4)
        assert len(by_text) == 2


def test_a_clip_of_shuffled_captions_does_not_find(folder, tmp_path):
    clip = RunClip.from_run(color_run(tmp_path / "shuffled", shuffled=True), "cpu")
    index, _ = refresh(empty(folder, clip), clip)
    found = [
        index.search(clip.encode_texts([f"a picture of a {name}"])[0], 1)[0].name
        for name in COLOURS
    ]
    right = sum(file.endswith(f"{name}.png") for file, name in zip(found, COLOURS, strict=True))
    assert right <= 2


def test_only_what_changed_is_embedded_again(clip, folder, monkeypatch):
    index, _ = refresh(empty(folder, clip), clip)
    embedded = []
    original = RunClip.encode_images

    def counting(self, images):
        embedded.append(len(images))
        return original(self, images)

    monkeypatch.setattr(RunClip, "encode_images", counting)
    same, changes = refresh(index, clip)
    assert (embedded, changes.kept) == ([], 4)
    assert torch.equal(same.vectors, index.vectors)

    patch("red").save(folder / "blue.png")
    os.utime(folder / "blue.png", ns=(1, 1))
    (folder / "green.png").unlink()
    patch("green").save(folder / "another.png")
    (folder / "broken.png").write_bytes(b"no image")
    updated, changes = refresh(index, clip)
    assert embedded == [2]
    assert (changes.added, changes.refreshed, changes.removed, changes.kept) == (1, 1, 1, 2)
    assert changes.unreadable == ("broken.png",)
    assert "green.png" not in updated.names
    anew, _ = refresh(empty(folder, clip), clip)
    assert updated.names == anew.names
    torch.testing.assert_close(updated.vectors, anew.vectors)


def test_other_weights_make_every_vector_anew(clip, folder, tmp_path):
    index, _ = refresh(empty(folder, clip), clip)
    other = RunClip.from_run(color_run(tmp_path / "other", shuffled=True), "cpu")
    updated, changes = refresh(index, other)
    assert (changes.refreshed, changes.kept) == (4, 0)
    assert updated.key == other.key
    assert not torch.allclose(updated.vectors, index.vectors)


def test_an_index_survives_the_disk(clip, folder, tmp_path):
    index, _ = refresh(empty(folder, clip), clip)
    index.save(tmp_path / "i" / "index.safetensors")
    loaded = ImageIndex.load(tmp_path / "i" / "index.safetensors")
    assert (loaded.names, loaded.stamps, loaded.key) == (index.names, index.stamps, index.key)
    assert loaded.source == index.source
    assert torch.equal(loaded.vectors, index.vectors)
    (tmp_path / "damaged.safetensors").write_bytes(b"x")
    with pytest.raises(ConfigError, match="not a readable image index"):
        ImageIndex.load(tmp_path / "damaged.safetensors")


def test_an_interrupted_index_is_continued(clip, folder, monkeypatch):
    monkeypatch.setattr(indexing, "BATCH", 1)
    monkeypatch.setattr(indexing, "SAVE_EVERY", 1)
    kept = []

    def interrupt(index):
        kept.append(index)
        if len(kept) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refresh(empty(folder, clip), clip, report=lambda _: None, save=interrupt)
    assert len(kept[-1]) == 3
    _, changes = refresh(kept[-1], clip, report=lambda _: None)
    assert (changes.added, changes.kept) == (1, 3)


def test_drawn_and_embedded_collections_are_indexed(run, clip, tmp_path):
    source = collection("shapes", run.experiment.data)
    index, changes = refresh(ImageIndex(source, "run", clip.key), clip)
    assert changes.added == 40 + 24 + 24
    name = index.names[50]
    assert name.startswith("validation/")
    opened = open_named(source, [name])[name]
    hit = index.search(clip.encode_images([opened.image])[0], 1)[0]
    assert hit.score > 0.99
    assert len(opened.captions) > 1

    table = {
        "image": [patch(name) for name in COLOURS],
        "text": list(COLOURS),
    }
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    rows = datasets.Dataset.from_dict(table, features=features)
    rows.to_parquet(str(tmp_path / "colors.parquet"))
    parquet = empty(tmp_path / "colors.parquet", clip)
    index, changes = refresh(parquet, clip)
    assert changes.added == 4
    assert len(open_named(index.source, index.names)) == 4
    assert refresh(index, clip)[1].kept == 4


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_tables_without_captions_are_indexed(clip, tmp_path, kind):
    files = {}
    for name in COLOURS:
        patch(name).save(tmp_path / f"{name}.png")
        files[name] = (tmp_path / f"{name}.png").read_bytes()
    path = tmp_path / f"images.{kind}"
    if kind == "parquet":
        table = {"image": [{"bytes": data, "path": None} for data in files.values()]}
        rows = datasets.Dataset.from_dict(table).cast_column("image", datasets.Image())
        rows.to_parquet(str(path))
    else:
        with tarfile.open(path, "w") as archive:
            for name in files:
                archive.add(tmp_path / f"{name}.png", f"{name}.png")
    index, changes = refresh(empty(path, clip), clip)
    assert changes.added == 4
    opened = open_named(index.source, index.names)
    assert {image.captions for image in opened.values()} == {()}


def test_a_path_of_the_run_keeps_its_columns_and_no_limit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in COLOURS:
        patch(name).save(f"{name}.png")
    rows = [f"{name}.png,{name},{name}" for name in COLOURS]
    Path("rows.csv").write_text("\n".join(["path,caption,said", *rows]))
    trained_on = DataConfig(path="rows.csv", caption_column="said", limit=2, held_out=0.5)
    for spelling in ("rows.csv", "./rows.csv", str(tmp_path / "rows.csv")):
        source = collection(spelling, trained_on)
        assert (source.caption_column, source.limit) == ("said", None)
        assert len(list(entries_of(source))) == 4


def test_a_column_of_an_unknown_name_is_named_and_searched(run, tmp_path, capsys):
    for name in COLOURS:
        patch(name).save(tmp_path / f"{name}.png")
    table = tmp_path / "rows.csv"
    table.write_text("\n".join(["shot", *(f"{name}.png" for name in COLOURS)]))
    options = ["--run", str(run.path), "--device", "cpu"]
    with pytest.raises(DataError, match="--image-column"):
        index_command.main([str(table), *options])
    index_command.main([str(table), "--image-column", "shot", *options])
    assert "4 added" in capsys.readouterr().out
    out = tmp_path / "out"
    search_command.main(["a picture of a blue", "--top", "1", "--out", str(out), *options])
    (found,) = json.loads((out / "search.json").read_text())["images"]
    assert "blue.png" in found["image"]
    for index in (run.path / "index").glob("rows-csv-*"):  # other tests count what is indexed
        index.unlink()


def test_images_without_a_file_are_shown_by_their_captions(run, tmp_path, capsys):
    options = ["--run", str(run.path), "--device", "cpu"]
    index_command.main(["shapes", *options])
    given = ["a red heart on a white background", "--top", "3", "--out", str(tmp_path), *options]
    capsys.readouterr()
    search_command.main(given)
    title, *table = capsys.readouterr().out.splitlines()
    assert title == "a red heart on a white background (of 88 images)"
    assert "caption" in table[1]
    source = collection("shapes", run.experiment.data)
    for found in json.loads((tmp_path / "search.json").read_text())["images"]:
        opened = open_named(source, [found["image"]])[found["image"]]
        assert found["caption"] == opened.captions[0]


def test_several_collections_are_searched_as_one(clip, folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    patch("red", 8).save(other / "small.png")
    indexes = [refresh(empty(where, clip), clip)[0] for where in (folder, other)]
    found = search_all(indexes, clip.encode_images([patch("red")])[0], 2)
    assert {hit.name for _, hit in found} == {"deep/red.png", "small.png"}


def test_faiss_agrees_with_the_exact_search(clip, folder, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    index, _ = refresh(empty(folder, clip), clip)
    query = clip.encode_texts(["a picture of a blue"])[0]
    monkeypatch.setattr(search, "FAISS_FROM", 1)
    for _ in range(2):  # the graph is built, then read
        found = search_all([index], query, 9, tmp_path / "graphs")
        assert [hit.name for _, hit in found] == [hit.name for hit in index.search(query, 9)]
    assert len(list((tmp_path / "graphs").glob("*.faiss"))) == 1


def test_the_commands_index_and_search(run, folder, tmp_path, capsys):
    options = ["--run", str(run.path), "--device", "cpu"]
    index_command.main([str(folder), *options])
    assert "4 added" in capsys.readouterr().out
    out = tmp_path / "out"
    search_command.main(
        ["a picture of a blue", "--top", "2", "--out", str(out), "--json", *options]
    )
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((out / "search.json").read_text())
    assert found["images"][0]["image"] == str(folder / "blue.png")
    assert len(found["images"]) == 2
    with Image.open(out / "search.png") as sheet:
        assert sheet.width > 2 * 128
    (folder / "deep" / "red.png").rename(folder / "moved.png")
    index_command.main([str(folder), *options])
    assert "1 added, 0 refreshed, 1 removed, 3 as they were" in capsys.readouterr().out
    search_command.main(["--image", str(folder / "moved.png"), "--out", str(out), *options])
    first = json.loads((out / "search.json").read_text())["images"][0]["image"]
    assert first == str(folder / "moved.png")


def test_json_stands_alone_where_an_index_is_left_out(run, clip, folder, tmp_path, capsys):
    index_command.main([str(folder), "--run", str(run.path), "--device", "cpu"])
    outdated = ImageIndex(collection(str(folder / "deep")), "run", "other weights")
    outdated.save(run.path / "index" / "outdated.safetensors")
    capsys.readouterr()
    given = ["red", "--run", str(run.path), "--device", "cpu", "--out", str(tmp_path)]
    search_command.main([*given, "--json"])
    (run.path / "index" / "outdated.safetensors").unlink()
    told = capsys.readouterr()
    assert json.loads(told.out)["query"] == "red"
    assert f"dalle index {folder / 'deep'}" in told.err


def test_an_index_of_other_weights_is_not_searched(folder, tmp_path):
    run = color_run(tmp_path / "run")
    options = ["--run", str(run.path), "--device", "cpu"]
    with pytest.raises(ConfigError, match="nothing is indexed"):
        search_command.main(["red", *options])
    index_command.main([str(folder), *options])
    color_run(run.path, shuffled=True)
    with pytest.raises(ConfigError, match=f"dalle index {folder}"):
        search_command.main(["red", "--out", str(tmp_path), *options])
    with pytest.raises(ConfigError, match="say what to look for"):
        search_command.main(options)

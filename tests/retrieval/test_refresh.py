"""A refresh embeds what is new or changed in any collection, and nothing else."""

import json
import os
import tarfile
from pathlib import Path

import datasets
import pytest
import torch

from dalle_mini_impl.cli import index as index_command
from dalle_mini_impl.cli import search as search_command
from dalle_mini_impl.data.collections.detect import DataError
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.retrieval import refresh as refreshing
from dalle_mini_impl.retrieval.collection import collection, entries_of, open_named
from dalle_mini_impl.retrieval.encoder import RunClip
from dalle_mini_impl.retrieval.image_index import ImageIndex
from dalle_mini_impl.retrieval.refresh import refresh
from tests.color_run import COLORS, color_run, empty_index, patch


def test_only_what_changed_is_embedded_again(clip, folder, monkeypatch):
    index, _ = refresh(empty_index(folder, clip), clip)
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
    again, _ = refresh(empty_index(folder, clip), clip)
    assert updated.names == again.names
    torch.testing.assert_close(updated.vectors, again.vectors)


def test_other_weights_embed_every_image_again(clip, folder, tmp_path):
    index, _ = refresh(empty_index(folder, clip), clip)
    other = RunClip.from_run(color_run(tmp_path / "other", shuffled=True), "cpu")
    updated, changes = refresh(index, other)
    assert (changes.refreshed, changes.kept) == (4, 0)
    assert updated.key == other.key
    assert not torch.allclose(updated.vectors, index.vectors)


def test_an_interrupted_index_is_continued(clip, folder, monkeypatch):
    monkeypatch.setattr(refreshing, "BATCH", 1)
    monkeypatch.setattr(refreshing, "SAVE_EVERY", 1)
    kept = []

    def interrupt(index):
        kept.append(index)
        if len(kept) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refresh(empty_index(folder, clip), clip, report=lambda _: None, save=interrupt)
    assert len(kept[-1]) == 3
    _, changes = refresh(kept[-1], clip, report=lambda _: None)
    assert (changes.added, changes.kept) == (1, 3)


def test_synthetic_images_and_images_in_tables_are_indexed(run, clip, tmp_path):
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
        "image": [patch(name) for name in COLORS],
        "text": list(COLORS),
    }
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    rows = datasets.Dataset.from_dict(table, features=features)
    rows.to_parquet(str(tmp_path / "colors.parquet"))
    parquet = empty_index(tmp_path / "colors.parquet", clip)
    index, changes = refresh(parquet, clip)
    assert changes.added == 4
    assert len(open_named(index.source, index.names)) == 4
    assert refresh(index, clip)[1].kept == 4


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_tables_without_captions_are_indexed(clip, tmp_path, kind):
    files = {}
    for name in COLORS:
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
    index, changes = refresh(empty_index(path, clip), clip)
    assert changes.added == 4
    opened = open_named(index.source, index.names)
    assert {image.captions for image in opened.values()} == {()}


def test_the_path_of_a_run_keeps_its_columns_but_not_its_limit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in COLORS:
        patch(name).save(f"{name}.png")
    rows = [f"{name}.png,{name},{name}" for name in COLORS]
    Path("rows.csv").write_text("\n".join(["path,caption,said", *rows]))
    trained_on = DataConfig(path="rows.csv", caption_column="said", limit=2, held_out=0.5)
    for spelling in ("rows.csv", "./rows.csv", str(tmp_path / "rows.csv")):
        source = collection(spelling, trained_on)
        assert (source.caption_column, source.limit) == ("said", None)
        assert len(list(entries_of(source))) == 4


def test_an_image_column_with_an_unknown_name_can_be_given(run, tmp_path, capsys):
    for name in COLORS:
        patch(name).save(tmp_path / f"{name}.png")
    table = tmp_path / "rows.csv"
    table.write_text("\n".join(["shot", *(f"{name}.png" for name in COLORS)]))
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

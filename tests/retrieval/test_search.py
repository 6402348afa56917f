"""Search finds images by text and image, and never compares vectors of different CLIPs."""

import json

import pytest
from PIL import Image

from dalle_mini_impl.cli import index as index_command
from dalle_mini_impl.cli import search as search_command
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.retrieval import search
from dalle_mini_impl.retrieval.collection import collection, open_named
from dalle_mini_impl.retrieval.encoder import RunClip
from dalle_mini_impl.retrieval.image_index import ImageIndex
from dalle_mini_impl.retrieval.refresh import refresh
from dalle_mini_impl.retrieval.search import search_all
from tests.color_run import COLORS, color_run, empty_index, patch


def test_a_text_and_an_image_find_the_image_of_their_color(clip, folder):
    index, changes = refresh(empty_index(folder, clip), clip)
    assert (changes.added, changes.kept) == (4, 0)
    assert set(index.names) == {"blue.png", "deep/red.png", "green.png", "yellow.png"}
    for name in COLORS:
        by_text = index.search(clip.encode_texts([f"a picture of a {name}"])[0], 2)
        by_image = index.search(clip.encode_images([patch(name)])[0], 1)
        assert by_text[0].name.endswith(f"{name}.png")
        assert by_image[0].name.endswith(f"{name}.png")
        assert by_image[0].score == pytest.approx(1, abs=1e-4)
        assert len(by_text) == 2


def test_a_clip_of_shuffled_captions_finds_nothing(folder, tmp_path):
    clip = RunClip.from_run(color_run(tmp_path / "shuffled", shuffled=True), "cpu")
    index, _ = refresh(empty_index(folder, clip), clip)
    found = [
        index.search(clip.encode_texts([f"a picture of a {name}"])[0], 1)[0].name for name in COLORS
    ]
    right = sum(file.endswith(f"{name}.png") for file, name in zip(found, COLORS, strict=True))
    assert right <= 2


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


def test_captions_in_files_beside_the_images_are_shown(folder, tmp_path, capsys):
    run = color_run(tmp_path / "run")
    for name in COLORS:
        for file in folder.rglob(f"{name}.png"):
            file.with_suffix(".txt").write_text(f"all of it is {name}\n", encoding="utf-8")
    options = ["--run", str(run.path), "--device", "cpu"]
    index_command.main([str(folder), *options, "--json"])
    assert json.loads(capsys.readouterr().out)["images"] == 4
    given = ["a picture of a blue", "--top", "1", "--out", str(tmp_path / "out"), *options]
    search_command.main([*given, "--quiet"])
    told = capsys.readouterr()
    assert "all of it is blue" in told.out
    assert "1 image: " in told.out
    assert told.err == ""


def test_several_collections_are_searched_as_one(clip, folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    patch("red", 8).save(other / "small.png")
    indexes = [refresh(empty_index(where, clip), clip)[0] for where in (folder, other)]
    found = search_all(indexes, clip.encode_images([patch("red")])[0], 2)
    assert {hit.name for _, hit in found} == {"deep/red.png", "small.png"}


def test_faiss_agrees_with_the_exact_search(clip, folder, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    index, _ = refresh(empty_index(folder, clip), clip)
    query = clip.encode_texts(["a picture of a blue"])[0]
    monkeypatch.setattr(search, "FAISS_FROM", 1)
    for _ in range(2):  # first built, then read from disk
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
    assert "1 added, 0 refreshed, 1 removed, 3 unchanged" in capsys.readouterr().out
    search_command.main(["--image", str(folder / "moved.png"), "--out", str(out), *options])
    first = json.loads((out / "search.json").read_text())["images"][0]["image"]
    assert first == str(folder / "moved.png")


def test_only_json_is_printed_if_an_index_is_left_out(run, clip, folder, tmp_path, capsys):
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
    with pytest.raises(ConfigError, match="give a text or an image"):
        search_command.main(options)

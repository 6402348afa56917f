"""Folders that the project's own commands wrote are collections; their sheets are no images."""

import json

import pytest
from PIL import Image

from dalle_mini_impl.data.collections.detect import detect
from dalle_mini_impl.data.collections.sample_lists import is_sheet, listed_images
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.sources import open_source
from dalle_mini_impl.retrieval.collection import collection, entries_of, open_named
from tests.data.collections.colored_squares import made_images


def write_samples(folder, captions):
    made_images(folder, captions)
    Image.new("RGB", (9, 9)).save(folder / "sheet.png")
    entries = [{"file": f"{color}.png", "caption": text} for color, text in captions.items()]
    values = {"run": "runs/tiny", "samples": entries}
    (folder / "samples.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


@pytest.fixture
def outputs(tmp_path):
    write_samples(tmp_path / "0001", {"red": "a red square", "blue": "a blue square"})
    write_samples(tmp_path / "0002", {"green": "a green square", "white": ""})
    optimized = tmp_path / "optimize"
    made_images(optimized, ["black"])
    made_images(optimized / "frames", ["orange"])
    for name in ("sheet.png", "loss.png", "preview.png", "film.webp"):
        Image.new("RGB", (9, 9)).save(optimized / name)
    values = {"run": "r", "arguments": {"text": "a dark square"}, "images": [{"file": "black.png"}]}
    (optimized / "result.json").write_text(json.dumps(values), encoding="utf-8")
    Image.new("RGB", (9, 9)).save(tmp_path / "search.png")
    (tmp_path / "search.json").write_text('{"query": "red", "images": []}', encoding="utf-8")
    return tmp_path


EXPECTED = {
    "0001/red.png": ("a red square",),
    "0001/blue.png": ("a blue square",),
    "0002/green.png": ("a green square",),
    "0002/white.png": (),
    "optimize/black.png": ("a dark square",),
}


def test_listed_images_have_the_captions_they_were_made_from(outputs):
    source = open_source(DataConfig(path=str(outputs), held_out=0), "train")
    examples = list(source)
    assert {example.key: example.captions for example in examples} == EXPECTED
    assert "3 sample lists" in source.description
    assert all(example.open().size == (8, 8) for example in examples)


def test_one_list_can_be_named(outputs):
    config = DataConfig(path=str(outputs / "0001" / "samples.json"), held_out=0)
    source = open_source(config, "train")
    assert {example.key for example in source} == {"red.png", "blue.png"}
    assert "1 sample list:" in source.description


def test_an_index_sees_the_samples_with_their_captions(outputs):
    source = collection(str(outputs))
    assert {entry.name for entry in entries_of(source)} == set(EXPECTED)
    found = open_named(source, list(EXPECTED))
    assert {name: image.captions for name, image in found.items()} == EXPECTED


def test_a_changed_sample_changes_the_fingerprint(outputs):
    config = DataConfig(path=str(outputs))
    before = open_source(config, "train").fingerprint()
    assert open_source(config, "train").fingerprint() == before
    Image.new("RGB", (8, 8), "pink").save(outputs / "0001" / "red.png")
    assert open_source(config, "train").fingerprint() != before


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        "[" * 100_000,
        '{"samples": []}',
        '{"run": "r", "samples": {"file": "red.png"}}',
        '{"run": "r", "samples": [{"file": "../0002/green.png"}]}',
        '{"run": "r", "samples": [{"file": "/etc/passwd"}]}',
        '{"run": "r", "samples": [{"file": "c:red.png"}]}',
        '{"run": "r", "samples": [{"file": ".."}]}',
        '{"run": "r", "samples": [{"caption": "red"}]}',
        '{"run": "r", "samples": ["red.png"]}',
    ],
)
def test_files_of_that_name_that_are_no_lists_are_not_taken_for_one(tmp_path, text):
    made_images(tmp_path, ["red", "blue"])
    (tmp_path / "red.txt").write_text("a red square")
    (tmp_path / "samples.json").write_text(text)
    assert listed_images(tmp_path / "samples.json") is None
    assert detect(str(tmp_path)).kind == "images"


def test_sheets_do_not_count_beside_a_list_only(outputs, tmp_path_factory):
    assert is_sheet(outputs / "0001" / "sheet.png")
    assert is_sheet(outputs / "optimize" / "frames" / "orange.png")
    assert is_sheet(outputs / "search.png")
    assert not is_sheet(outputs / "0001" / "red.png")
    other = tmp_path_factory.mktemp("beds")
    for name in ("sheet.png", "photo.png"):
        Image.new("RGB", (9, 9)).save(other / name)
    assert not is_sheet(other / "sheet.png")
    assert len(detect(str(other)).files) == 2
    (other / "search.json").write_text("{}")
    Image.new("RGB", (9, 9)).save(other / "search.png")
    assert {"sheet.png", "search.png"} == {f.name for f in other.iterdir() if is_sheet(f)}

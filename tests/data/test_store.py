"""Images are decoded once, kept exactly, reused while the data is the same and not after."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dalle_mini_impl.data import preparation, workers
from dalle_mini_impl.data.collections.detect import DataError
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.preparation import prepare
from dalle_mini_impl.data.sources import open_source
from dalle_mini_impl.data.store import Store
from dalle_mini_impl.data.synthetic.shapes import ShapesConfig
from dalle_mini_impl.files import temporary_path
from dalle_mini_impl.images import fit


@pytest.fixture
def collection(tmp_path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        pixels = rng.integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(f"image {number}\nnumber {number}")
    return folder


def config(folder: Path, **settings) -> DataConfig:
    return DataConfig(**{"path": str(folder), "held_out": 0, "image_size": 16, **settings})


def shapes(**settings) -> DataConfig:
    return DataConfig(
        image_size=32, shapes=ShapesConfig(train_examples=150, held_out_examples=5), **settings
    )


def silent(message: str) -> None:
    """Swallows what is reported."""


def test_images_and_captions_are_kept_exactly(collection, tmp_path):
    store = prepare(config(collection), "train", tmp_path / "cache", silent)
    assert store.images.shape == (12, 16, 16, 3)
    assert store.images.dtype == np.uint8
    assert len(store) == 12
    for index, key in enumerate(store.keys):
        expected = fit(Image.open(collection / key), 16)
        assert np.array_equal(store.images[index], np.asarray(expected))
        assert store.captions[index] == (f"image {int(key[:2])}", f"number {int(key[:2])}")
    with pytest.raises(ValueError, match="read-only"):
        store.images[0] = 0


def test_attributes_are_kept(tmp_path):
    store = prepare(shapes(), "held_out", tmp_path, silent)
    for kept, example in zip(store.attributes, open_source(shapes(), "held_out"), strict=True):
        assert kept == json.loads(json.dumps(example.attributes))


def test_many_processes_and_one_give_the_same(tmp_path, monkeypatch):
    one = prepare(shapes(workers=1), "train", tmp_path / "one", silent)
    monkeypatch.setattr(workers, "POOL_FROM", 1)
    two = prepare(shapes(workers=2), "train", tmp_path / "two", silent)
    assert len(one) == 150 == len(two)
    assert np.array_equal(one.images, two.images)
    assert (one.keys, one.captions) == (two.keys, two.captions)
    assert one.attributes == two.attributes
    assert one.fingerprint == two.fingerprint


def test_reused_when_equal(collection, tmp_path, monkeypatch):
    first = prepare(config(collection), "train", tmp_path / "cache", silent)

    def never(*arguments, **options):
        raise AssertionError("decoded again")

    monkeypatch.setattr(preparation, "map_examples", never)
    said: list[str] = []
    again = prepare(config(collection, workers=3), "train", tmp_path / "cache", said.append)
    assert again.fingerprint == first.fingerprint
    assert np.array_equal(again.images, first.images)
    assert "12 images ready" in said[0]
    moved = collection.rename(tmp_path / "elsewhere")
    prepare(config(moved), "train", tmp_path / "cache", silent)
    copied = Path(shutil.copytree(moved, tmp_path / "copy", copy_function=shutil.copyfile))
    for file in copied.iterdir():
        os.utime(file, ns=(1, 1))
    prepare(config(copied), "train", tmp_path / "cache", silent)


def edit_caption(folder: Path) -> None:
    (folder / "03.txt").write_text("another image")


def edit_image(folder: Path) -> None:
    """Keeps the size and the time."""
    file = folder / "03.png"
    times = file.stat()
    Image.open(folder / "04.png").save(file)
    file.write_bytes(file.read_bytes()[: times.st_size].ljust(times.st_size, b"0"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def add_image(folder: Path) -> None:
    Image.new("RGB", (9, 9)).save(folder / "99.png")
    (folder / "99.txt").write_text("new")


@pytest.mark.parametrize("change", [edit_caption, edit_image, add_image])
def test_rebuilt_when_the_data_changes(collection, tmp_path, change):
    before = prepare(config(collection), "train", tmp_path / "cache", silent)
    change(collection)
    after = prepare(config(collection), "train", tmp_path / "cache", silent)
    assert after.fingerprint != before.fingerprint
    assert len(after) == len(list(collection.glob("*.png")))
    assert ("another image",) in after.captions or change is not edit_caption


def test_an_image_named_in_a_table_is_watched_too(collection, tmp_path):
    (collection / "metadata.csv").write_text("file_name,text\n00.png,first\n01.png,second\n")
    before = prepare(config(collection), "train", tmp_path / "cache", silent)
    Image.new("RGB", (40, 40), "red").save(collection / "01.png")
    after = prepare(config(collection), "train", tmp_path / "cache", silent)
    assert before.captions == after.captions == [("first",), ("second",)]
    assert (after.images[1] == (255, 0, 0)).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"image_size": 24},
        {"held_out": 0.3},
        {"held_out_captions": ("image 3",)},
        {"limit": 5},
        {"random_resized_crop": 0.25},
    ],
)
def test_rebuilt_when_settings_change(collection, tmp_path, settings):
    before = prepare(config(collection), "train", tmp_path / "cache", silent)
    after = prepare(config(collection, **settings), "train", tmp_path / "cache", silent)
    assert before.fingerprint != after.fingerprint


def test_a_held_out_path_rebuilds_the_training_images(collection, tmp_path):
    settings = {"held_out": 0.3}
    before = prepare(config(collection, **settings), "train", tmp_path / "cache", silent)
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "elsewhere" / "a.png")
    settings["held_out_path"] = str(tmp_path / "elsewhere")
    after = prepare(config(collection, **settings), "train", tmp_path / "cache", silent)
    assert len(before) < len(after) == 12


def test_random_crops_get_larger_images(collection, tmp_path):
    store = prepare(config(collection, random_resized_crop=0.3), "train", tmp_path / "c", silent)
    assert store.side == 30  # ceil(16 / sqrt(0.3))
    assert store.images.shape[1:] == (30, 30, 3)


def test_unreadable_images_are_skipped_counted_and_named(collection, tmp_path):
    (collection / "03.png").write_bytes(b"not an image")
    (collection / "07.png").write_bytes((collection / "07.png").read_bytes()[:300])
    said: list[str] = []
    store = prepare(config(collection, max_unreadable=0.2), "train", tmp_path / "c", said.append)
    assert len(store) == 10
    assert store.counts["unreadable"] == 2
    assert "03.png" not in store.keys
    assert store.captions[3] == ("image 4", "number 4")
    assert "skipped 2 unreadable of 12 images" in said[1]
    assert "03.png" in said[1]
    assert "07.png" in said[1]


def test_too_many_unreadable_images_stop_and_leave_nothing(collection, tmp_path):
    (collection / "03.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"1 of 12 .*unreadable.*max_unreadable = 0\.05.*03\.png"):
        prepare(config(collection), "train", tmp_path / "cache", silent)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".train.lock"]


def test_missing_files_of_a_table_are_unreadable(collection, tmp_path):
    (collection / "metadata.csv").write_text("file_name,text\n00.png,first\nno.png,second\n")
    with pytest.raises(DataError, match=r"no\.png: no such file"):
        prepare(config(collection), "train", tmp_path / "cache", silent)


def test_a_failed_rebuild_keeps_the_old_store(collection, tmp_path):
    before = prepare(config(collection), "train", tmp_path / "cache", silent)
    for file in collection.glob("*.png"):
        file.write_bytes(b"broken")
    with pytest.raises(DataError):
        prepare(config(collection), "train", tmp_path / "cache", silent)
    kept = Store.open(tmp_path / "cache" / "train")
    assert kept.fingerprint == before.fingerprint
    assert np.array_equal(kept.images, before.images)


def test_images_without_captions_are_skipped_among_captioned_ones(collection, tmp_path):
    (collection / "03.txt").unlink()
    (collection / "04.txt").write_text(" \n\n")
    said: list[str] = []
    store = prepare(config(collection), "train", tmp_path / "cache", said.append)
    assert len(store) == 10
    assert store.counts["uncaptioned"] == 2
    assert "skipped 2 without a caption" in said[-1]


def test_a_collection_without_any_caption_trains_unconditionally(collection, tmp_path):
    for file in collection.glob("*.txt"):
        file.unlink()
    said: list[str] = []
    store = prepare(config(collection), "train", tmp_path / "cache", said.append)
    assert store.captions == [("",)] * 12
    assert not store.captioned
    assert "unconditional" in said[-1]


def test_empty_splits(collection, tmp_path):
    store = prepare(config(collection), "held_out", tmp_path / "cache", silent)
    assert len(store) == 0
    assert store.images.shape == (0, 16, 16, 3)
    with pytest.raises(DataError, match="no image to train on"):
        prepare(config(collection, held_out_captions=(".",)), "train", tmp_path / "c", silent)


def test_half_a_store_is_not_used(collection, tmp_path):
    prepare(config(collection), "train", tmp_path / "cache", silent)
    (tmp_path / "cache" / "train" / "store.json").write_text("{")
    assert len(prepare(config(collection), "train", tmp_path / "cache", silent)) == 12


@pytest.mark.parametrize("name", ["images.u8", "examples.jsonl", "store.json"])
def test_a_damaged_store_is_prepared_again_aloud(collection, tmp_path, name):
    before = prepare(config(collection), "train", tmp_path / "cache", silent)
    images = before.images.copy()
    file = tmp_path / "cache" / "train" / name
    content = bytearray(file.read_bytes())
    at = content.index(b'"captioned": true') if name == "store.json" else len(content) // 2
    content[at + 1] ^= 1
    file.write_bytes(content)
    said = []
    after = prepare(config(collection), "train", tmp_path / "cache", said.append)
    assert "is damaged" in said[0]
    assert "preparing it again" in said[0]
    assert np.array_equal(after.images, images)
    assert after.captions == before.captions


def test_rows_removed_from_a_store_are_noticed(collection, tmp_path):
    store = prepare(config(collection), "train", tmp_path / "cache", silent)
    lines = store.folder / "examples.jsonl"
    lines.write_text("".join(lines.read_text().splitlines(keepends=True)[:-3]))
    with pytest.raises(DataError, match="differ from their digest"):
        Store.open(store.folder)


def test_what_a_killed_process_left_is_removed(collection, tmp_path):
    left = temporary_path(tmp_path / "cache" / "train")
    left.mkdir(parents=True)
    prepare(config(collection), "train", tmp_path / "cache", silent)
    assert not left.exists()


def test_preparing_is_announced_before_it_takes_its_time(collection, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    said = []
    monkeypatch.setattr(preparation, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(config(collection), "train", tmp_path / "cache", said.append)
    assert said == [f"train: preparing at most 12 images of {collection}"]

"""An image under several names stands on one side of the split only."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dalle_mini_impl.data.check import check
from dalle_mini_impl.data.collections.detect import DataError
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.preparation import prepare
from dalle_mini_impl.data.sources import open_source
from dalle_mini_impl.data.store import Store


def silent(message: str) -> None:
    """Swallows what is reported."""


def save(folder: Path, name: str, seed: int, caption: str = "an image") -> None:
    """An image of random pixels, in a file that depends on its name too."""
    folder.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(folder / f"{name}.png", compress_level=len(name) % 10)
    (folder / f"{name}.txt").write_text(caption)


def pixels(store: Store) -> set[bytes]:
    return {image.tobytes() for image in store.images}


@pytest.fixture
def doubled(tmp_path) -> Path:
    """Forty images, each under two names."""
    for seed in range(40):
        save(tmp_path / "in", f"{seed}", seed)
        save(tmp_path / "in", f"copy-of-{seed}", seed)
    return tmp_path / "in"


def test_copies_of_validation_images_do_not_train(doubled, tmp_path):
    config = DataConfig(path=str(doubled), image_size=16, held_out=0.3)
    keys = {s: {e.key for e in open_source(config, s)} for s in ("train", "validation")}
    said: list[str] = []
    train = prepare(config, "train", tmp_path / "cache", said.append)
    validation = prepare(config, "validation", tmp_path / "cache", silent)
    assert set(validation.keys) == keys["validation"]
    assert set(train.keys) < keys["train"]
    assert not pixels(train) & pixels(validation)
    left_out = len(keys["train"]) - len(train)
    assert left_out == train.counts["copies"] > 0
    assert f"left out {left_out} that have the pixels of held out or validation images" in said[-1]
    again: list[str] = []
    prepare(config, "train", tmp_path / "cache", again.append)
    assert len(again) == 1
    assert "ready" in again[0]


def test_copies_of_held_out_compositions_neither_train_nor_validate(doubled, tmp_path):
    (doubled / "7.txt").write_text("a purple cow")
    config = DataConfig(
        path=str(doubled), image_size=16, held_out=0.3, held_out_captions=("purple",)
    )
    held_out, validation, train = (
        prepare(config, split, tmp_path / "cache", silent)
        for split in ("held_out", "validation", "train")
    )
    assert held_out.keys == ["7.png"]
    assert not pixels(held_out) & (pixels(validation) | pixels(train))


def test_copies_in_another_place_are_watched(tmp_path):
    for seed in range(10):
        save(tmp_path / "in", f"{seed}", seed)
    save(tmp_path / "elsewhere", "renamed", 3)
    config = DataConfig(
        path=str(tmp_path / "in"), held_out_path=str(tmp_path / "elsewhere"), image_size=16
    )
    before = prepare(config, "train", tmp_path / "cache", silent)
    assert before.keys == [f"{seed}.png" for seed in range(10) if seed != 3]
    save(tmp_path / "elsewhere", "another", 4)
    after = prepare(config, "train", tmp_path / "cache", silent)
    assert "4.png" not in after.keys
    assert after.fingerprint != before.fingerprint
    for seed in range(10):
        save(tmp_path / "elsewhere", f"all-{seed}", seed)
    with pytest.raises(DataError, match=r"10 of 10 have the pixels .* data\.held_out_path"):
        prepare(config, "train", tmp_path / "cache", silent)


def test_the_data_check_counts_copies(doubled, tmp_path):
    config = DataConfig(path=str(doubled), image_size=16, held_out=0.3)
    report = check(config)
    copies = prepare(config, "train", tmp_path / "cache", silent).counts["copies"]
    assert report.copies == copies
    assert f"{copies} copies of validation or held-out images" in str(report)
    assert check(config.model_copy(update={"held_out": 0.0})).copies == 0


def test_without_copies_nothing_changes(tmp_path):
    for seed in range(20):
        save(tmp_path / "in", f"{seed}", seed)
    config = DataConfig(path=str(tmp_path / "in"), image_size=16, held_out=0.3)
    said: list[str] = []
    train = prepare(config, "train", tmp_path / "cache", said.append)
    assert train.keys == [example.key for example in open_source(config, "train")]
    assert train.counts["copies"] == 0
    assert not any("left out" in line for line in said)

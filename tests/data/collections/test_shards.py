"""A damaged tar shard is noticed, and the images that it hides count as unreadable."""

import gzip
import tarfile
from pathlib import Path

import pytest

from dalle_mini_impl.data.check import check
from dalle_mini_impl.data.collections.detect import DataError
from dalle_mini_impl.data.collections.shards import find_damage
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.preparation import prepare
from tests.data.collections.colored_squares import COLORS, examples, png, shard, tar


def header_of(path: Path, name: str) -> int:
    with tarfile.open(path) as archive:
        return archive.getmember(name).offset


def flip(path: Path, at: int) -> Path:
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("field", [3, 110, 130, 150])  # name, owner, size, checksum
@pytest.mark.parametrize("stream", [False, True])
def test_images_behind_a_flipped_bit_are_named(tmp_path, field, stream):
    path = shard(tmp_path / "a.tar")
    at = header_of(path, "blue.png")
    found = examples(flip(path, at + field), stream=stream)
    assert [e.key for e in found][:2] == ["red", "green"]
    lost = found[2:]
    assert len(lost) == 4
    assert [e.key for e in lost[1:]] == ["white", "black", "orange"]
    for example in lost:
        with pytest.raises(ValueError, match=rf"a\.tar is damaged at byte {at:,} and not read"):
            example.open()


def test_they_count_against_the_share_that_may_fail(tmp_path):
    tar(tmp_path / "0.tar", {f"{i}.png": png(size=8 + i) for i in range(30)})
    path = tar(tmp_path / "1.tar", {f"{i}.png": png(size=8 + i) for i in range(30, 60)})
    flip(path, header_of(path, "40.png"))
    data = {"path": str(tmp_path), "image_size": 8, "caption_column": "", "held_out": 0}
    with pytest.raises(DataError, match=r"^20 of 60 images .*max_unreadable = 0\.05 .*1\.tar is"):
        prepare(DataConfig(**data), "train", tmp_path / "c")
    said: list[str] = []
    willing = DataConfig(**data, max_unreadable=0.4)
    store = prepare(willing, "train", tmp_path / "c", said.append)
    assert (len(store), store.counts["unreadable"]) == (40, 20)
    assert any("skipped 20 unreadable of 60 images" in line for line in said)
    assert len(check(willing).unreadable) == 20
    some = prepare(DataConfig(**data, limit=30, max_unreadable=1), "train", tmp_path / "l")
    assert 0 < some.counts["unreadable"] == 30 - len(some)


def test_both_splits_get_their_share(tmp_path):
    path = tar(tmp_path / "0.tar", {f"{i}.png": png(size=8 + i) for i in range(60)})
    flip(path, header_of(path, "5.png"))
    data = {"caption_column": "", "held_out": 0.5}
    train, validation = (examples(path, split, **data) for split in ("train", "validation"))
    assert len(train) + len(validation) == 60
    assert not {e.key for e in train} & {e.key for e in validation}


def test_shards_that_end_early_or_go_on(tmp_path):
    path = shard(tmp_path / "a.tar")
    whole = path.read_bytes()
    assert find_damage(str(path)) is None
    end = header_of(path, "white.png")
    path.write_bytes(whole[:end])
    found = examples(path)
    assert [e.key for e in found] == ["red", "green", "blue", "a.tar"]
    assert "without the mark of its end" in found[-1].problem
    path.write_bytes(whole + shard(tmp_path / "b.tar", COLORS[:2]).read_bytes())
    assert [e.key for e in examples(path)] == [*COLORS, "red", "green"]
    path.write_bytes(whole + bytes(100_000))
    assert len(examples(path)) == len(COLORS)


def test_a_compressed_shard_is_read_to_its_checksum(tmp_path):
    path = tmp_path / "a.tar.gz"
    content = gzip.compress(shard(tmp_path / "a.tar").read_bytes())
    path.write_bytes(content)
    assert find_damage(str(path)) is None
    flip(path, len(content) - 8)  # the checksum of all that was compressed
    damage = find_damage(str(path))
    assert damage is not None
    assert "a.tar.gz is damaged" in damage.reason

"""Batches depend on the step alone, cover every image, and draw captions and crops at random."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dalle_mini_impl.data.batches import BatchOrder, CodeBatches, ImageBatches
from dalle_mini_impl.data.caption_table import CaptionTable
from dalle_mini_impl.data.codes import CodeCache, CodeKey
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.prefetch import prefetch


class Letters:
    """A caption encoder of one id per character."""

    context = 4

    def __init__(self):
        self.encoded = []

    def encode(self, captions, rng=None):
        self.encoded.append((list(captions), rng is not None))
        ids = np.zeros((len(captions), self.context), np.int64)
        for row, text in zip(ids, captions, strict=True):
            row[: len(text)] = [ord(c) for c in text]
        return ids


class Images:
    def __init__(self, n, side):
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (n, side, side, 3), np.uint8)

    def __len__(self):
        return len(self.images)


Settings = partial(DataConfig, image_size=8)
CAPTIONS = [("a", "b"), ("c",), (), ("a", "d", "e"), ("f",)]


def image_batches(settings, side=8, **options):
    table = CaptionTable(CAPTIONS, Letters())
    return ImageBatches(Images(5, side), table, settings, BatchOrder(3, seed=1, **options))


def test_every_epoch_shows_every_image_once_across_ranks_and_epoch_ends():
    drawn = [
        BatchOrder(3, rank=rank, world=2).indices(10, step)
        for step in range(15)
        for rank in range(2)
    ]
    epochs = np.concatenate(drawn).reshape(9, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 9


def test_indices_depend_on_seed_and_step_and_batches_may_exceed_an_epoch():
    assert np.array_equal(BatchOrder(8, 5).indices(100, 77), BatchOrder(8, 5).indices(100, 77))
    assert not np.array_equal(BatchOrder(8, 5).indices(100, 77), BatchOrder(8, 6).indices(100, 77))
    assert sorted(np.bincount(BatchOrder(7).indices(3, 0))) == [2, 2, 3]
    assert len(BatchOrder(4, seed=-1).indices(10, 3)) == 4
    with pytest.raises(ValueError, match="no images"):
        BatchOrder(4).indices(0, 0)


def test_captions_are_drawn_at_random_from_the_images_own():
    letters = Letters()
    table = CaptionTable(CAPTIONS, letters)
    assert sorted(letters.encoded[0][0]) == ["", "a", "b", "c", "d", "e", "f"]  # "a" only once
    rng = np.random.default_rng(0)
    drawn = torch.stack([table.random_ids(np.arange(5), rng)[:, 0] for _ in range(60)])
    assert drawn.dtype == torch.int64
    found = [{chr(i) if i else "" for i in column.tolist()} for column in drawn.T]
    assert found == [set(captions) or {""} for captions in CAPTIONS]
    assert len(letters.encoded) == 1


def test_bpe_dropout_encodes_each_draw():
    letters = Letters()
    table = CaptionTable([("a",), ("b",)], letters, dropout=True)
    assert table.random_ids(np.array([1, 0, 1]), np.random.default_rng(0))[:, 0].tolist() == [
        98,
        97,
        98,
    ]
    assert letters.encoded[1] == (["b", "a", "b"], True)


def test_equal_captions_have_one_number():
    table = CaptionTable([("a", "b"), ("b",), ("c",)], Letters())
    numbers = table.texts(np.array([0, 0, 1, 2]), np.array([0, 1, 0, 0]))
    assert numbers[1] == numbers[2]
    assert len(set(numbers.tolist())) == 3


class LowerLetters(Letters):
    """Knows no capitals and four letters of a caption."""

    def encode(self, captions, rng=None):
        return super().encode([text.lower()[: self.context] for text in captions], rng)


def test_captions_are_equal_if_their_ids_are():
    captions = [("Ab", "c"), ("C", "aB"), ("abcdEF",), ("ABCDxy",)]
    table = CaptionTable(captions, LowerLetters(), dropout=True)
    assert len(set(table.groups(np.arange(4)).tolist())) == 2
    numbers = table.texts(np.array([0, 1, 2, 3]), np.array([0, 1, 0, 0]))
    assert numbers[0] == numbers[1] != numbers[2] == numbers[3]


def test_near_misses_with_the_ids_of_a_true_caption_are_left_out():
    table = CaptionTable([("ab", "cd"), ("ef",)], LowerLetters())
    rng = np.random.default_rng(0)

    def wrong_ids(negative):
        rows = np.array([0, 1])
        return table.negatives(rows, np.zeros(2, np.int64), negative, 3, rng)

    made = wrong_ids(lambda image, caption, rng: rng.choice(["AB", "CD", "Ef", "XY"]))
    assert {chr(i) for i in made[0, :, 0].tolist()} == {"e", "x"}
    assert {chr(i) for i in made[1, :, 0].tolist()} <= {"a", "c", "x"}
    alike = wrong_ids(lambda image, caption, rng: "AB")
    assert not alike[0].any()
    assert alike[1].any()


def test_plain_image_batches_are_the_stored_images():
    batches = image_batches(Settings())
    batch = batches(4)
    indices = BatchOrder(3, seed=1).indices(5, 4)
    expected = torch.from_numpy(batches.store.images[indices]).permute(0, 3, 1, 2) / 255
    assert torch.equal(batch.images, expected)
    assert batch.images.dtype == torch.float32
    assert batch.captions.shape == (3, 4)


def test_augmentation_is_deterministic_per_step_and_only_on_request():
    settings = Settings(random_resized_crop=0.5, horizontal_flip=True)
    again = image_batches(settings, side=12)(7)
    batch = image_batches(settings, side=12)(7)
    assert torch.equal(batch.images, again.images)
    assert torch.equal(batch.captions, again.captions)
    assert batch.images.shape == (3, 3, 8, 8)
    plain = image_batches(Settings(), side=12)(7)
    assert not torch.allclose(batch.images, plain.images, atol=0.02)
    assert 0 <= batch.images.min() <= batch.images.max() <= 1


def test_flips_mirror_about_half_of_the_images():
    plain, flipping = (
        image_batches(Settings()),
        image_batches(Settings(horizontal_flip=True)),
    )
    flipped = 0
    for step in range(20):
        for a, b in zip(plain(step).images, flipping(step).images, strict=True):
            assert torch.equal(a, b) or torch.equal(a.flip(-1), b)
            flipped += not torch.equal(a, b)
    assert 15 < flipped < 45


def test_shifts_move_whole_images_and_repeat_their_edges():
    plain, shifting = image_batches(Settings()), image_batches(Settings(random_shift=2))
    offsets = set()
    for step in range(20):
        for image, shifted in zip(plain(step).images, shifting(step).images, strict=True):
            padded = F.pad(image[None], (2, 2, 2, 2), mode="replicate")[0]
            found = [
                (y, x)
                for y in range(5)
                for x in range(5)
                if torch.equal(padded[:, y : y + 8, x : x + 8], shifted)
            ]
            assert len(found) == 1
            offsets |= set(found)
    assert len(offsets) > 15  # of 25


def test_ranks_draw_different_captions_and_crops():
    settings = Settings(random_resized_crop=0.5)
    first = image_batches(settings, side=12, rank=0, world=2)(0)
    second = image_batches(settings, side=12, rank=1, world=2)(0)
    assert not torch.equal(first.images, second.images)


def test_code_batches_pair_codes_with_their_captions(tmp_path):
    key = CodeKey("w", "d", variants=2, images=5)
    rows = np.arange(10)[:, None] * 100 + np.arange(6)
    cache = CodeCache.write(tmp_path, key, [rows])
    batches = CodeBatches(
        cache, CaptionTable([("abcde"[i],) for i in range(5)], Letters()), BatchOrder(3)
    )
    seen = set()
    for step in range(20):
        batch = batches(step)
        assert batch.codes.dtype == torch.int64
        images = batch.codes[:, 0] // 100
        assert torch.equal(images % 5 + ord("a"), batch.captions[:, 0])
        seen |= set(images.tolist())
    assert seen == set(range(10))  # both variants of every image


def test_mismatched_captions_are_refused():
    table = CaptionTable([("a",)], Letters())
    with pytest.raises(ValueError, match="5 images but captions for 1"):
        ImageBatches(Images(5, 8), table, Settings(), BatchOrder(2))


def test_prefetch_keeps_order_raises_errors_and_ends_its_thread():
    assert list(prefetch(lambda step: step * 2, 3, 4)) == [6, 8, 10, 12]

    def broken(step):
        if step == 2:
            raise RuntimeError("unreadable")
        return step

    stream = prefetch(broken, 0, 5)
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(RuntimeError, match="unreadable"):
        next(stream)
    stream = prefetch(lambda step: step, 0, 1000)
    next(stream)
    stream.close()
    assert not any(thread.name == "batches" for thread in threading.enumerate())


def test_prefetch_computes_on_one_core_and_leaves_its_caller_with_all():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        stream = prefetch(lambda step: torch.get_num_threads(), 0, 2)
        assert next(stream) == 1
        assert torch.get_num_threads() == 2
        stream.close()
        # Nor does a thread that begins later inherit the one.
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(before)

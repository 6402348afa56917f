"""The code cache: written whole, read back, and not used when stale."""

import numpy as np
import pytest

from dalle_mini_impl.data.codes import MAX_CODES, CodeCache, CodeKey, perplexity

KEY = CodeKey(weights="w", data="d", variants=2, images=3)
ROWS = np.arange(24).reshape(6, 4)


def test_round_trip_in_chunks_is_memory_mapped_and_narrow(tmp_path):
    CodeCache.write(tmp_path, KEY, iter([ROWS[:4], ROWS[4:]]))
    cache = CodeCache.open(tmp_path, KEY)
    assert isinstance(cache.codes, np.memmap)
    assert cache.codes.dtype == np.uint16
    assert np.array_equal(cache.codes, ROWS.reshape(2, 3, 4))


def test_large_codes_are_kept_whole(tmp_path):
    assert CodeCache.write(tmp_path, KEY, [ROWS + 2**16]).codes.max() == 23 + 2**16


def test_a_code_that_does_not_fit_is_refused_and_not_wrapped(tmp_path):
    assert CodeCache.write(tmp_path, KEY, [ROWS + MAX_CODES - 24]).codes.max() == MAX_CODES - 1
    with pytest.raises(ValueError, match="code 2,147,483,648 is too large"):
        CodeCache.write(tmp_path, KEY, [ROWS + MAX_CODES - 23])
    assert CodeCache.open(tmp_path, KEY) is None


@pytest.mark.parametrize(
    "key",
    [
        CodeKey("other", "d", 2, 3),
        CodeKey("w", "other", 2, 3),
        CodeKey("w", "d", 1, 3),
        CodeKey("w", "d", 2, 4),
        CodeKey("w", "d", 2, 3, "random_shift=2"),
    ],
)
def test_a_stale_cache_is_not_used(tmp_path, key):
    CodeCache.write(tmp_path, KEY, [ROWS])
    assert CodeCache.open(tmp_path, key) is None


def test_an_interrupted_write_leaves_no_cache(tmp_path):
    CodeCache.write(tmp_path, KEY, [ROWS])

    def chunks():
        yield ROWS[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CodeCache.write(tmp_path, KEY, chunks())
    assert CodeCache.open(tmp_path, KEY) is None
    assert not list(tmp_path.glob(".codes*"))


@pytest.mark.parametrize("rows", [ROWS[:5], np.concatenate([ROWS, ROWS[:1]]), ROWS[:0]])
def test_a_wrong_number_of_images_is_an_error(tmp_path, rows):
    with pytest.raises(ValueError, match="were expected"):
        CodeCache.write(tmp_path, KEY, [rows])


def test_a_missing_or_damaged_cache_is_none(tmp_path):
    assert CodeCache.open(tmp_path, KEY) is None
    CodeCache.write(tmp_path, KEY, [ROWS])
    content = bytearray((tmp_path / "codes.npy").read_bytes())
    content[-1] ^= 1
    (tmp_path / "codes.npy").write_bytes(content)
    assert CodeCache.open(tmp_path, KEY) is None
    CodeCache.write(tmp_path, KEY, [ROWS])
    (tmp_path / "codes.json").write_text("{")
    assert CodeCache.open(tmp_path, KEY) is None


def test_counts_and_perplexity_measure_usage(tmp_path):
    cache = CodeCache.write(tmp_path, KEY, [ROWS % 4])
    values, counts = cache.histogram()
    assert values.tolist() == [0, 1, 2, 3]
    assert counts.tolist() == [6, 6, 6, 6]
    assert perplexity(counts) == pytest.approx(4)
    assert perplexity(np.array([9, 0])) == pytest.approx(1)


def test_the_cache_of_some_weights_is_found_without_its_other_inputs(tmp_path):
    assert CodeCache.of_weights(tmp_path, "w") is None
    CodeCache.write(tmp_path, KEY, [ROWS])
    assert CodeCache.of_weights(tmp_path, "w").key == KEY
    assert CodeCache.of_weights(tmp_path, "other") is None
    (tmp_path / "codes.npy").write_bytes(b"")
    assert CodeCache.of_weights(tmp_path, "w") is None

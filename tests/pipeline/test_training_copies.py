"""Samples that are near copies of training images are marked, and passed over if asked."""

import json
import shutil

import pytest
from PIL import Image

from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.pipeline.again import sample_again
from dalle_mini_impl.sampling.record import read_record
from tests.copied import train_on
from tests.tiny import tiny_run

EXACT = {"precision": "fp32", "compile": "off", "candidates": 6}
OTHERS = [[15] * 16, [3] * 16, [*range(16)]]


@pytest.fixture
def run(tmp_path):
    return tiny_run(tmp_path / "tiny")


@pytest.fixture
def best(run):
    """The three best images of a run that knows no training images."""
    results = TextToImage.from_pretrained(run, "cpu")("a red star", num_images=3, **EXACT)
    assert [result.nearest for result in results] == [None] * 3
    return results


def after_training_on(run, images, **keywords):
    train_on(run, [*OTHERS, *(image.codes for image in images)])
    model = TextToImage.from_pretrained(run, "cpu")
    return model, model("a red star", **{"num_images": 2, **EXACT, **keywords})


def test_copies_are_marked_in_the_result_its_file_and_its_html(run, best, tmp_path):
    _, (first, second) = after_training_on(run, best[:1])
    assert first.codes == best[0].codes
    assert first.is_training_copy
    assert not second.is_training_copy
    assert first.nearest.model_dump() == {"image": 3, "likeness": 1.0, "near_copy": True}
    assert first.mark in first._repr_html_()
    assert first.mark in repr(first)
    assert not second.mark
    first.save(tmp_path / "image.png")
    with Image.open(tmp_path / "image.png") as image:
        assert read_record(image).nearest == first.nearest
        assert json.loads(image.info["dalle"])["nearest"]["near_copy"]
        assert "Training image: 3" in image.info["parameters"]


def test_copies_are_passed_over_if_asked(run, best):
    _, results = after_training_on(run, best[:1], avoid_copies=True)
    assert [r.codes for r in results] == [r.codes for r in best[1:]]
    assert not any(result.is_training_copy for result in results)


def test_where_all_are_copies_the_best_are_shown_marked(run, best):
    model = TextToImage.from_pretrained(run, "cpu")
    all_of_them = model("a red star", num_images=6, **EXACT)
    _, results = after_training_on(run, all_of_them, avoid_copies=True)
    assert [r.codes for r in results] == [r.codes for r in best[:2]]
    assert all(result.is_training_copy for result in results)


def test_marked_files_are_sampled_again_byte_for_byte_with_the_cache_or_without(
    run, best, tmp_path
):
    model, (first, _) = after_training_on(run, best[:1])
    first.save(tmp_path / "image.png")
    shutil.rmtree(run.path / "cache")
    for again in (model, TextToImage.from_pretrained(run, "cpu")):
        with Image.open(tmp_path / "image.png") as image:
            sample_again(again, image).save(tmp_path / "again.png")
        assert (tmp_path / "again.png").read_bytes() == (tmp_path / "image.png").read_bytes()


def test_without_codes_of_this_image_tokenizer_nothing_is_marked(run, best):
    cache = run.path / "cache" / "codes"
    train_on(run, [best[0].codes], weights="0" * 32)
    assert TextToImage.from_pretrained(run, "cpu").training_codes is None
    train_on(run, [best[0].codes])
    assert TextToImage.from_pretrained(run, "cpu").training_codes is not None
    for damage in (lambda: (cache / "codes.npy").write_bytes(b""), lambda: shutil.rmtree(cache)):
        damage()
        model = TextToImage.from_pretrained(run, "cpu")
        (result,) = model("a red star", num_images=1, avoid_copies=True, **EXACT)
        assert result.nearest is None
        assert result.codes == best[0].codes

"""Galleries of ranked samples, and the captions that they are sampled for."""

import pytest

from dalle_mini_impl.data.preparation import prepare
from dalle_mini_impl.evaluation.report.gallery import fixed_captions, read_gallery, sample_gallery
from dalle_mini_impl.pipeline import TextToImage
from tests.tiny import tiny_run


@pytest.fixture
def run(tmp_path):
    return tiny_run(tmp_path / "run")


def test_galleries_are_best_first(run):
    model = TextToImage.from_pretrained(run, "cpu")
    sample_gallery(run, model, ["a red heart"], num_images=4, candidates=6)
    (ranked,) = read_gallery(run)
    scores = [image.clip_score for image in ranked.images]
    assert ranked.candidates == 6
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)


def test_fixed_captions_are_of_unseen_images(run):
    assert fixed_captions(run) == []
    quiet = lambda text: None  # noqa: E731
    train = prepare(run.experiment.data, "train", run.cache / "images", quiet)
    assert set(fixed_captions(run, 4)) <= {own[0] for own in train.captions}
    unseen = prepare(run.experiment.data, "validation", run.cache / "images", quiet)
    held_out = prepare(run.experiment.data, "held_out", run.cache / "images", quiet)
    captions = fixed_captions(run, 4)
    assert len(set(captions)) == 4
    assert set(captions[:2]) <= {own[0] for own in unseen.captions}
    assert set(captions[2:]) <= {own[0] for own in held_out.captions}

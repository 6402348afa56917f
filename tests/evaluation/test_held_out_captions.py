"""Captions of a measured collection are compared by their ids."""

import numpy as np
import pytest
from PIL import Image

from dalle_mini_impl.captions import CaptionTokenizer
from dalle_mini_impl.evaluation.held_out import CollectionSettings, HeldOut
from dalle_mini_impl.evaluation.measures import features
from dalle_mini_impl.evaluation.measures.features import StoredImages, pixel_features
from dalle_mini_impl.runs.folder import RunFolder
from tests.tiny import tiny_experiment

CAPTIONS = ("red Heart", "Red heart", "red heart", "blue heart", "a very long way to say moon",
            "a very long way to say sun")  # fmt: skip


@pytest.fixture(scope="module")
def held_out(tmp_path_factory) -> HeldOut:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(60):
        pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(CAPTIONS[number % 6])
    experiment = tiny_experiment(
        data={"path": str(folder), "image_size": 16, "held_out": 0.9, "held_out_path": None},
        captions={"vocabulary": None, "vocabulary_size": 300, "context": 6},
        clip={"patch": 2},
    )
    run = RunFolder.create(tmp_path_factory.mktemp("run") / "run", experiment)
    run.save_captions(CaptionTokenizer.train(CAPTIONS, experiment.captions))
    return HeldOut(run, CollectionSettings(), lambda _: None)


def test_captions_that_differ_in_capitals_or_beyond_the_context_are_equal(held_out):
    kinds = {"r": "red heart", "R": "red heart", "b": "blue heart", "a": "long"}
    known = [kinds[text[0]] for text in held_out.captions]
    assert held_out.same.tolist() == [[a == b for b in known] for a in known]


def test_wrong_captions_differ_in_their_ids(held_out):
    rows, wrong = held_out.wrong_captions(0)
    encode = held_out.run.captions().encode
    assert len(rows) > 10
    for row, text in zip(rows, wrong, strict=True):
        assert (encode([text]) != encode([held_out.captions[row]])).any(), text


def test_features_of_a_store_are_computed_a_few_images_at_a_time(held_out, monkeypatch):
    data = held_out.run.experiment.data
    images = StoredImages(held_out.store, held_out.rows, data)
    loaded = []
    load = features.load_images

    def counting(store, rows, *options):
        loaded.append(len(rows))
        return load(store, rows, *options)

    monkeypatch.setattr(features, "load_images", counting)
    monkeypatch.setattr(features, "LOADED", 8)
    found = pixel_features(4)(images)
    assert max(loaded) == 8
    assert sum(loaded) == len(held_out)
    assert (found == pixel_features(4)(held_out.images)).all()

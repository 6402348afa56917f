"""Previews show the codes sampled so far, and nothing is decoded for them unasked."""

import numpy as np
import pytest
import torch

from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.pipeline.previews import unfinished
from tests.tiny import tiny_run

GRID = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return TextToImage.from_pretrained(tiny_run(tmp_path_factory.mktemp("runs") / "tiny"), "cpu")


def test_the_callback_sees_every_row_and_at_last_the_images(model):
    seen = []
    results = model(
        ["a red heart", "a ring"],
        candidates=3,
        num_images=3,
        rank_by="none",
        callback=lambda step, images: seen.append((step, images)),
    )
    assert [step for step, _ in seen] == [GRID, 2 * GRID, 3 * GRID, 4 * GRID]
    assert {len(images) for _, images in seen} == {6}
    last = [np.asarray(image).astype(int) for image in seen[-1][1]]
    final = [np.asarray(result.image).astype(int) for own in results for result in own]
    assert max(abs(a - b).max() for a, b in zip(last, final, strict=True)) <= 1
    first = np.asarray(seen[0][1][0])
    assert (first[8:] == 128).all()
    assert (first[:8] != 128).any()


def test_previews_change_nothing(model):
    plain = model("a red heart", seed=5, precision="fp32")
    watched = model("a red heart", seed=5, precision="fp32", callback=lambda step, images: None)
    assert [result.codes for result in watched] == [result.codes for result in plain]


def test_without_a_callback_only_complete_images_are_decoded(model, monkeypatch):
    decoded = []
    decode = ImageTokenizer.decode

    def counting(self, codes):
        decoded.append(len(codes))
        return decode(self, codes)

    monkeypatch.setattr(ImageTokenizer, "decode", counting)
    model("a red heart", candidates=2, num_images=2)
    assert decoded == [2, 1, 1]  # all to rank them, then each alone


def test_kept_codes_are_shown_from_the_start(model):
    codes = torch.zeros(1, GRID * GRID, dtype=torch.long)
    given = torch.full((GRID * GRID,), -1)
    given[-GRID:] = 3
    shown = unfinished(model.image_tokenizer, codes, GRID, given)[0]
    assert (shown[:, 8:24] == 0.5).all()
    assert not (shown[:, 24:] == 0.5).all()
    assert not (shown[:, :8] == 0.5).all()


def test_sampling_stops_where_the_callback_raises(model):
    def stop(step, images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model("a red heart", callback=stop)

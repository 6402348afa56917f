"""CLIP's retrieval, hard negatives and calibration on similarities with known answers."""

from types import SimpleNamespace

import pytest
import torch

from dalle_mini_impl.evaluation.held_out_clip import HeldOutClip
from dalle_mini_impl.evaluation.measures.agreement import (
    above_median,
    measure_calibration,
    measure_hard_negatives,
    measure_retrieval,
)


def unit(*rows):
    return torch.nn.functional.normalize(torch.tensor(rows), dim=1)


IMAGES = unit([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.9, 0.1])
TEXTS = unit([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0])


def test_images_with_an_equal_caption_count_as_found():
    same = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 1, 1]]).bool()
    retrieval = measure_retrieval(IMAGES, TEXTS, same).figures
    assert retrieval["captions"] == 2
    assert retrieval["image_to_caption"]["recall@1"] == 1.0
    assert retrieval["caption_to_image"]["recall@1"] == 1.0
    wrong = measure_retrieval(IMAGES, TEXTS[[1, 0, 0]], same).figures
    assert wrong["image_to_caption"]["recall@1"] == 0.0


def test_own_captions_are_above_the_median_for_half_of_the_images_by_chance():
    apart = torch.eye(4).bool()
    assert above_median(torch.eye(4), torch.eye(4), apart) == 4
    alike = unit([1.0, 1.0]).expand(4, 2)
    texts = unit([1.0, 0.0], [1.0, 0.2], [1.0, 0.4], [1.0, 0.6])
    assert above_median(alike, texts, apart) == 2
    assert above_median(alike, alike, apart) == 0
    assert above_median(torch.eye(4), torch.eye(4), torch.ones(4, 4).bool()) == 0


def test_features_of_an_untrained_clip_are_refused():
    class Held(list):
        same = torch.eye(8).bool()

    def why_not(images, texts):
        clip = SimpleNamespace(images=images, texts=texts, held_out=Held(range(8)))
        return HeldOutClip.why_no_measure(clip)

    vectors = torch.eye(8)
    assert why_not(vectors, vectors) == ""
    assert "for 0 of 8 images" in why_not(vectors, vectors.flip(0))
    assert "pixels take their place" in why_not(vectors[:1].expand(8, 8), vectors)


def test_a_tie_with_a_hard_negative_is_a_failure():
    hard = measure_hard_negatives(IMAGES, TEXTS, TEXTS[[1, 0, 2]]).figures
    assert (hard["pairs"], hard["accuracy"]) == (3, pytest.approx(2 / 3))


def test_calibration_of_known_logits():
    blind = measure_calibration(torch.zeros(8, 8), torch.eye(8).bool(), 4, "infonce").figures
    assert blind["loss"] == pytest.approx(blind["ln_batch"])
    sure = measure_calibration(50 * torch.eye(8), torch.eye(8).bool(), 4, "infonce").figures
    assert sure["loss"] == pytest.approx(0, abs=1e-4)
    assert sure["expected_calibration_error"] == pytest.approx(0, abs=1e-4)
    # Equal captions are no negatives: if all are equal, the loss is 0.
    equal = measure_calibration(torch.zeros(4, 4), torch.ones(4, 4).bool(), 4, "infonce").figures
    assert equal["loss"] == pytest.approx(0, abs=1e-6)
    pairs = measure_calibration(100 * torch.eye(4) - 50, torch.eye(4).bool(), 4, "siglip").figures
    assert pairs["expected_calibration_error"] == pytest.approx(0, abs=1e-4)

"""CLIP's retrieval, hard negatives and calibration on similarities with known answers."""

import pytest
import torch

from dalle_mini_impl.evaluation.measures.agreement import (
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

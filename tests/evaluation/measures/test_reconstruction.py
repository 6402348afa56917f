"""Measures of reconstructions."""

import pytest
import torch

from dalle_mini_impl.evaluation.measures.features import pixel_features
from dalle_mini_impl.evaluation.measures.reconstruction import encode_again, measure_reconstructions


def test_reconstructions_show_the_worst_and_count_codes():
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.8
    decoded = images.clone()
    decoded[4] += 0.1
    codes = torch.tensor([[0, 1]]).repeat(6, 1)
    again = codes.clone()
    again[2, 1] = 5
    part = measure_reconstructions(images, decoded, codes, again, (8,), pixel_features(4))
    assert part.figures["psnr_worst"] == pytest.approx(20, abs=0.01)
    assert part.figures["code_usage"] == 0.25
    assert part.figures["codes_kept"] == pytest.approx(11 / 12)
    assert part.figures["images_kept"] == pytest.approx(5 / 6)
    assert part.figures["perplexity"] == pytest.approx(2)
    assert "pixels averaged to 4 × 4" in part.tables[0].note
    assert part.images.index("original, 20.0 dB") < part.images.index("original, 100.0 dB")


def test_images_are_encoded_again_as_a_file_holds_them():
    def encode(images):
        """A code for the first pixel's red, and one for what 8 bits cannot hold of it."""
        red = images[:, 0, 0, 0] * 255
        return torch.stack((red.round(), 1000 * (red - red.round()).abs()), dim=1).long()

    decoded = torch.full((70, 3, 4, 4), 0.3)
    assert encode(decoded)[0, 1] > 0
    assert encode_again(encode, decoded, torch.device("cpu")).tolist() == [[76, 0]] * 70

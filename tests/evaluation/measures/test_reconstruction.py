"""Measures of reconstructions."""

import pytest
import torch

from dalle_mini_impl.evaluation.measures.features import pixel_features
from dalle_mini_impl.evaluation.measures.reconstruction import measure_reconstructions


def test_reconstructions_show_the_worst_and_count_codes():
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.8
    decoded = images.clone()
    decoded[4] += 0.1
    codes = torch.tensor([[0, 1]]).repeat(6, 1)
    part = measure_reconstructions(images, decoded, codes, (8,), pixel_features(4))
    assert part.figures["psnr_worst"] == pytest.approx(20, abs=0.01)
    assert part.figures["code_usage"] == 0.25
    assert part.figures["perplexity"] == pytest.approx(2)
    assert "pixels averaged to 4 × 4" in part.tables[0].note
    assert part.images.index("original, 20.0 dB") < part.images.index("original, 100.0 dB")

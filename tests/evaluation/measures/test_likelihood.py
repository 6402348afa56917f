"""The transformer's loss with the true caption, another image's and none."""

import pytest
import torch

from dalle_mini_impl.evaluation.measures.likelihood import measure_likelihood, others


def test_a_transformer_that_reads_pays_fewer_bits_for_the_true_caption():
    def reader(ids, codes):
        """Predicts the first code from the caption and guesses the second of four."""
        logits = torch.zeros(len(ids), 2, 4)
        logits[torch.arange(len(ids)), 0, ids[:, 0] % 4] = 20.0
        return logits.log_softmax(dim=2).gather(2, codes[:, :, None])[:, :, 0]

    ids = torch.tensor([[1, 0], [2, 0], [3, 0], [1, 0]])
    codes = torch.tensor([[1, 0], [2, 3], [3, 1], [1, 1]])
    figures = measure_likelihood(reader, ids, codes, 4, torch.device("cpu")).figures
    assert figures["true caption"]["bits_per_token"] == pytest.approx(1.0, abs=1e-3)
    assert figures["another image's"]["bits_per_token"] > 10
    assert figures["another image's"]["true_is_likelier"] == 1.0
    assert figures["none"]["more_than_true"] > 10


def test_another_caption_is_another_one():
    assert others(torch.tensor([[1, 5], [1, 5], [2, 5], [1, 5]])) == [2, 2, 3, 2]
    assert others(torch.tensor([[1, 5], [1, 5]])) == [0, 1]

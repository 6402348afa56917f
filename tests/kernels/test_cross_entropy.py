"""The chunked loss is the plain loss, gradients included, and keeps no logits."""

import pytest
import torch
import torch.nn.functional as F

from dalle_mini_impl.kernels import cross_entropy
from dalle_mini_impl.kernels.cross_entropy import fast, mean_cross_entropy, plain

POSITIONS, CHANNELS, CODES = 37, 16, 50


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, POSITIONS, CHANNELS, generator=generator, requires_grad=True)
    head = torch.randn(CODES, CHANNELS, generator=generator, requires_grad=True)
    targets = torch.randint(CODES, (1, POSITIONS), generator=generator)
    return features, head, targets, torch.rand(1, POSITIONS, generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("chunk_logits", [1, 8 * CODES, 10**6], ids=["rows", "chunks", "whole"])
def test_fast_equals_plain(chunk_logits, smoothing):
    features, head, targets, shares = example()
    expected = plain(features, head, targets, shares, smoothing)
    wanted = torch.autograd.grad(3 * expected, (features, head))
    loss = fast(features, head, targets, shares, smoothing, chunk_logits)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(3 * loss, (features, head)), wanted)


def test_chunks_follow_autocast_as_the_whole_does():
    features, head, targets, shares = example()
    with torch.autocast("cpu", torch.bfloat16):
        expected = plain(features, head, targets, shares)
        loss = fast(features, head, targets, shares, chunk_logits=8 * CODES)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-2, atol=1e-2)
    ours = torch.autograd.grad(loss, (features, head))
    theirs = torch.autograd.grad(expected, (features, head))
    torch.testing.assert_close(ours, theirs, rtol=3e-2, atol=3e-2)


def test_many_logits_come_in_chunks_and_none_are_kept(monkeypatch, fast_kernels):
    features, head, targets, _ = example()
    sizes = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    def loss() -> torch.Tensor:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            return mean_cross_entropy(features, head, targets)

    whole = loss()
    assert max(sizes) >= POSITIONS * CODES
    sizes.clear()
    monkeypatch.setattr(cross_entropy, "MANY_LOGITS", POSITIONS * CODES - 1)
    torch.testing.assert_close(loss(), whole)
    assert max(sizes) < POSITIONS * CODES


def test_weights_share_the_mean_among_their_positions():
    features, head, targets, shares = example()
    weights = (shares > 0.5).float()
    loss = mean_cross_entropy(features, head, targets, weights)
    counted = shares > 0.5
    expected = F.cross_entropy(features[counted] @ head.T, targets[counted])
    torch.testing.assert_close(loss, expected)
    nothing = mean_cross_entropy(features, head, targets, 0 * weights)
    assert nothing == 0


@pytest.mark.parametrize("many", [0, 2**25], ids=["fast", "plain"])
def test_label_smoothing_is_torchs(monkeypatch, fast_kernels, many):
    monkeypatch.setattr(cross_entropy, "MANY_LOGITS", many)
    features, head, targets, _ = example()
    loss = mean_cross_entropy(features, head, targets, label_smoothing=0.2)
    logits = (features @ head.T).flatten(0, 1)
    expected = F.cross_entropy(logits, targets.flatten(), label_smoothing=0.2)
    torch.testing.assert_close(loss, expected)
    wanted = torch.autograd.grad(expected, (features, head))
    torch.testing.assert_close(torch.autograd.grad(loss, (features, head)), wanted)

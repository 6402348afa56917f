"""Quantizers: codes and latents correspond, relaxations end hard, gradients arrive."""

import math

import pytest
import torch

from dalle_mini_impl.models.tokenizers.quantizers import (
    FiniteScalarQuantizer,
    GumbelQuantizer,
    gumbel_noise,
    nearest_rows,
)

LEVELS = [(8, 8, 8), (8, 5, 5, 5), (2, 3), (7,), (4, 2, 5)]


@pytest.mark.parametrize("levels", LEVELS)
def test_finite_scalars_are_a_bijection_of_codes_and_latents(levels):
    quantizer = FiniteScalarQuantizer(levels)
    count = math.prod(levels)
    assert quantizer.code_count == count
    codes = torch.arange(count).reshape(1, 1, count)
    latents = quantizer.embed(codes)
    assert latents.shape == (1, len(levels), 1, count)
    assert len({tuple(v.tolist()) for v in latents[0, :, 0].T}) == count
    assert torch.equal(quantizer.nearest(latents).codes, codes)
    for channel, n in enumerate(levels):
        assert latents[0, channel].unique().numel() == n
        assert latents[0, channel].abs().max() <= 1


@pytest.mark.parametrize("levels", LEVELS)
def test_features_reach_every_level_and_no_other(levels):
    """Even levels have no middle: a bound that forgets the half step loses or invents a level."""
    quantizer = FiniteScalarQuantizer(levels)
    sweep = torch.linspace(-12, 12, 4001).expand(1, len(levels), 4001).unsqueeze(2)
    quantized = quantizer(sweep)
    for channel, n in enumerate(levels):
        half = n // 2
        steps = (quantized.latents[0, channel, 0] * half).unique()
        assert torch.allclose(steps, torch.arange(n, dtype=torch.float32) - half, atol=1e-5)
    assert torch.equal(quantized.codes, quantizer.codes(sweep))


@pytest.mark.parametrize("levels", [(8, 8, 8), (8, 5, 5, 5), (7,), (4, 3)])
def test_zero_features_are_the_zero_level(levels):
    quantizer = FiniteScalarQuantizer(levels)
    zeros = torch.zeros(1, len(levels), 1, 1)
    assert torch.allclose(quantizer.bound(zeros), zeros, atol=1e-6)
    assert torch.allclose(quantizer(zeros).latents, zeros, atol=1e-6)


def test_nearest_level_is_kept_within_range():
    quantizer = FiniteScalarQuantizer((8, 5))
    latents = torch.tensor([[9.0, -9.0], [-9.0, 9.0]]).reshape(2, 2, 1, 1)
    nearest = quantizer.nearest(latents)
    assert nearest.latents.flatten().tolist() == pytest.approx([0.75, -1, -1, 1])
    assert torch.equal(quantizer.embed(nearest.codes), nearest.latents)


def test_gradient_passes_straight_through_the_rounding():
    quantizer = FiniteScalarQuantizer((8, 8))
    features = torch.randn(2, 2, 3, 3, requires_grad=True)
    bound = quantizer.bound(features)
    slope = torch.autograd.grad(bound.sum(), features, retain_graph=True)[0]
    passed = torch.autograd.grad(quantizer(features).latents.sum(), features)[0]
    assert torch.allclose(passed, slope)
    assert (passed > 0).all()


def test_gumbel_relaxation_ends_in_the_hard_codes():
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(16, 4)
    logits = torch.randn(2, 16, 3, 3)
    hard = quantizer.embed(quantizer.codes(logits))

    def distance(temperature):
        soft = quantizer(logits, torch.zeros_like(logits), torch.tensor(temperature))
        assert torch.equal(soft.codes, quantizer.codes(logits))
        return (soft.latents - hard).abs().max().item()

    assert distance(1.0) > 0.1
    assert distance(1.0) > distance(0.1) > distance(0.001)
    assert distance(0.001) < 1e-4


def used_codes(dead_code_threshold):
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(16, 4, dead_code_threshold)
    preferred = torch.zeros(16)
    preferred[:4] = 4.0  # the other twelve are never the largest by themselves
    for _ in range(300):
        features = torch.randn(4, 16, 4, 4) + preferred.reshape(1, 16, 1, 1)
        quantizer(features, torch.zeros_like(features), torch.tensor(1.0))
    quantizer.eval()
    seen = torch.randn(64, 16, 4, 4) + preferred.reshape(1, 16, 1, 1)
    before = quantizer.offsets.clone()
    quantizer(seen, torch.zeros_like(seen), torch.tensor(1.0))
    assert torch.equal(quantizer.offsets, before)  # only training moves them
    return torch.bincount(quantizer.codes(seen).flatten(), minlength=16)


def test_gumbel_codes_that_lie_idle_are_raised_until_they_are_chosen():
    assert (used_codes(dead_code_threshold=0.1) > 0).all()
    assert (
        used_codes(dead_code_threshold=0.1)[:4] > used_codes(dead_code_threshold=0.1)[4:].max()
    ).all()
    assert (used_codes(dead_code_threshold=0.0)[4:] < 5).all()


def test_gumbel_noise_draws_codes_by_their_probability():
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([0.0, 1.0, 2.0]).log_softmax(0)
    draws = logits + gumbel_noise(torch.empty(20000, 3), generator)
    shares = torch.bincount(draws.argmax(1), minlength=3) / 20000
    assert torch.allclose(shares, logits.exp(), atol=0.015)
    again = gumbel_noise(torch.empty(4), torch.Generator().manual_seed(1))
    assert torch.equal(again, gumbel_noise(torch.empty(4), torch.Generator().manual_seed(1)))


def test_nearest_rows_is_the_smallest_distance():
    torch.manual_seed(0)
    latents, rows = torch.randn(2, 5, 3, 3), torch.randn(11, 5)
    flat = latents.movedim(1, -1).reshape(-1, 5)
    expected = torch.cdist(flat, rows).argmin(1).reshape(2, 3, 3)
    assert torch.equal(nearest_rows(latents, rows), expected)


@pytest.mark.parametrize("quantizer", [GumbelQuantizer(6, 3), FiniteScalarQuantizer((3, 2))])
def test_codes_that_do_not_exist_are_refused(quantizer):
    with pytest.raises(IndexError):
        quantizer.embed(torch.tensor([[[6]]]))


@pytest.mark.parametrize("quantizer", [GumbelQuantizer(6, 3), FiniteScalarQuantizer((3, 2))])
def test_nearest_latents_of_embedded_codes_are_themselves(quantizer):
    codes = torch.arange(6).reshape(1, 2, 3)
    latents = quantizer.embed(codes).detach().requires_grad_()
    nearest = quantizer.nearest(latents)
    assert torch.equal(nearest.codes, codes)
    assert torch.allclose(nearest.latents, latents)
    nearest.latents.sum().backward()
    assert torch.equal(latents.grad, torch.ones_like(latents))

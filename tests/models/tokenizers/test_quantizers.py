"""Quantizers: codes and latents correspond, relaxations end hard, gradients arrive."""

import math

import pytest
import torch

from dalle_mini_impl.models.tokenizers.categorical import (
    LARGEST_SCALE,
    CategoricalConfig,
    DistanceCategorical,
    FreeCategorical,
    build_categorical,
    entropy_gap,
    gumbel_noise,
    kl_to_uniform,
)
from dalle_mini_impl.models.tokenizers.finite_scalar import FiniteScalarQuantizer
from dalle_mini_impl.models.tokenizers.product import ProductQuantizer
from dalle_mini_impl.models.tokenizers.quantizer import Relaxation, nearest_rows

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
    assert torch.equal(quantizer.embed(quantizer.codes(sweep)), quantized.latents)


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


def categorical(count=16, width=4, **settings):
    torch.manual_seed(0)
    config = CategoricalConfig(codes=count, width=width, **{"kl_weight": 1.0, **settings})
    return build_categorical(count, config)


def relaxed(logits, temperature, noise=None):
    noise = torch.zeros_like(logits) if noise is None else noise
    return Relaxation(noise, torch.tensor(temperature))


@pytest.mark.parametrize("logits", ["distance", "free"])
def test_soft_relaxation_ends_in_the_hard_codes(logits):
    quantizer = categorical(logits=logits, relaxation="soft")
    features = 3 * torch.randn(2, quantizer.features, 3, 3)
    of_codes = quantizer.logits(features)
    assert of_codes.shape == (2, 3, 3, 16)
    hard = quantizer.embed(quantizer.codes(features))

    def distance(temperature):
        soft = quantizer(features, relaxed(of_codes, temperature))
        return (soft.latents - hard).abs().max().item()

    assert distance(1.0) > distance(0.1) > distance(0.001)
    assert distance(1.0) > 0.1
    assert distance(0.001) < 1e-4


def test_hard_relaxation_decodes_one_code_with_the_gradient_of_the_soft_one():
    hard, soft = categorical(relaxation="hard"), categorical(relaxation="soft")
    features = torch.randn(2, 4, 3, 3, requires_grad=True)
    noise = gumbel_noise(torch.empty(2, 3, 3, 16), torch.Generator().manual_seed(0))
    drawn = hard(features, Relaxation(noise, torch.tensor(0.5)))
    noisy = hard.logits(features) + noise
    assert torch.allclose(drawn.latents, hard.embed(noisy.argmax(dim=-1)), atol=1e-5)
    mixed = soft(features, Relaxation(noise, torch.tensor(0.5)))
    weights = torch.randn_like(mixed.latents)
    slopes = [
        torch.autograd.grad((own.latents * weights).sum(), features)[0] for own in (drawn, mixed)
    ]
    assert torch.allclose(*slopes, atol=1e-5)


def test_straight_through_decodes_the_likeliest_code_and_moves_it_and_the_feature():
    quantizer = categorical(commitment=0.5)
    features = torch.randn(2, 4, 3, 3, requires_grad=True)
    latents, losses = quantizer(features)
    assert torch.allclose(latents, quantizer.embed(quantizer.codes(features)), atol=1e-6)
    slope = torch.randn_like(latents)
    to_feature, to_codes = torch.autograd.grad(
        (latents * slope).sum(), (features, quantizer.codebook.weight)
    )
    points = torch.nn.functional.normalize(features, dim=1)
    assert torch.allclose(to_feature, torch.autograd.grad((points * slope).sum(), features)[0])
    used = quantizer.codes(features).unique()
    assert (to_codes.abs().sum(dim=1) > 0).nonzero().flatten().tolist() == used.tolist()
    distance = (points - quantizer.embed(quantizer.codes(features))).square().sum(dim=1).mean()
    assert torch.allclose(losses["commitment"], distance, atol=1e-6)


def test_distance_logits_are_those_of_a_gaussian_around_each_code():
    """exp(-s·‖z - e‖²), normalized: the same posterior as the logits give."""
    quantizer = categorical()
    features = torch.randn(2, 4, 3, 3)
    points = torch.nn.functional.normalize(features, dim=1).movedim(1, -1)
    squares = (points[..., None, :] - quantizer.rows()).square().sum(-1)
    posterior = (-quantizer.log_scale.exp() * squares).softmax(-1)
    assert torch.allclose(quantizer.logits(features).softmax(-1), posterior, atol=1e-6)
    assert quantizer.log_scale.exp().item() == pytest.approx(10)
    assert quantizer.rows().norm(dim=1).tolist() == pytest.approx([1.0] * 16)
    assert torch.equal(quantizer.codes(features), quantizer.codes(9 * features))
    assert torch.equal(quantizer.codes(features), squares.argmin(-1))


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_what_is_trained_gets_a_gradient(weight):
    quantizer = categorical(entropy_weight=weight, kl_weight=0.0)
    latents, losses = quantizer(torch.randn(2, 4, 4, 4))
    (latents.sum() + sum(losses.values())).backward()
    trained = [parameter for parameter in quantizer.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in trained)


def test_a_flat_posterior_is_no_way_to_close_the_entropy_gap():
    assert not categorical().log_scale.requires_grad
    assert categorical(relaxation="soft").log_scale.requires_grad


def test_the_scale_of_distance_logits_is_bounded():
    quantizer = categorical()
    features = torch.randn(1, 4, 2, 2)
    quantizer.log_scale.data.fill_(math.log(10 * LARGEST_SCALE))
    largest = quantizer.logits(features)
    quantizer.log_scale.data.fill_(math.log(LARGEST_SCALE))
    assert torch.allclose(quantizer.logits(features), largest)


def test_kl_is_its_closed_form():
    shares = torch.tensor([0.7, 0.2, 0.1, 1e-30])
    expected = 0.7 * math.log(0.7) + 0.2 * math.log(0.2) + 0.1 * math.log(0.1) + math.log(4)
    logits = (shares.log() + 5).reshape(1, 1, 1, 4)
    assert kl_to_uniform(logits).item() == pytest.approx(expected, rel=1e-5)
    assert kl_to_uniform(torch.zeros(3, 2, 2, 9)).item() == pytest.approx(0, abs=1e-6)


def test_kl_grows_neither_with_the_batch_nor_with_the_grid():
    logits = torch.randn(1, 2, 2, 6, generator=torch.Generator().manual_seed(0))
    once = kl_to_uniform(logits)
    assert torch.allclose(kl_to_uniform(logits.repeat(5, 1, 1, 1)), once)
    assert torch.allclose(kl_to_uniform(logits.repeat(1, 3, 3, 1)), once)


def test_the_entropy_gap_asks_for_even_use_not_for_doubt():
    sure = 50 * torch.nn.functional.one_hot(torch.arange(8).reshape(1, 2, 4)).float()
    assert entropy_gap(sure).item() == pytest.approx(0, abs=1e-4)
    one_code = sure[:, :1, :1].expand(1, 2, 4, 8)
    assert entropy_gap(one_code).item() == pytest.approx(math.log(8), rel=1e-4)
    half = sure[:, :1].expand(1, 2, 4, 8)
    assert entropy_gap(half).item() == pytest.approx(math.log(2), rel=1e-4)


def codes_in_use(weight):
    torch.manual_seed(0)
    quantizer = categorical(entropy_weight=weight, kl_weight=0.0)
    # Features near four of the sixteen codes.
    near = quantizer.rows()[:4].detach().repeat(16, 1) + 0.3 * torch.randn(64, 4)
    features = near.T.reshape(1, 4, 8, 8)
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.02)
    for _ in range(100):
        losses = quantizer(features).losses
        if "entropy_gap" in losses:
            optimizer.zero_grad()
            losses["entropy_gap"].backward()
            optimizer.step()
    return len(quantizer.codes(features).unique())


def test_the_entropy_gap_brings_idle_codes_into_use():
    assert codes_in_use(1.0) > codes_in_use(0.0)


@pytest.mark.parametrize("logits", ["distance", "free"])
def test_the_losses_of_the_posterior_know_neither_temperature_nor_noise(logits):
    quantizer = categorical(logits=logits, relaxation="soft")
    features = torch.randn(2, quantizer.features, 3, 3)
    of_codes = quantizer.logits(features)
    noise = gumbel_noise(of_codes)
    cold, warm = (quantizer(features, relaxed(of_codes, t, noise)) for t in (0.1, 1.0))
    assert not torch.equal(cold.latents, warm.latents)
    assert cold.losses == warm.losses


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


CONFIG = CategoricalConfig(codes=6, width=3, relaxation="soft")
QUANTIZERS = [
    FreeCategorical(6, CONFIG),
    DistanceCategorical(6, CONFIG),
    FiniteScalarQuantizer((3, 2)),
    ProductQuantizer([DistanceCategorical(2, CONFIG), DistanceCategorical(3, CONFIG)]),
]


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_codes_that_do_not_exist_are_refused(quantizer):
    with pytest.raises(IndexError):
        quantizer.embed(torch.tensor([[[6]]]))


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_nearest_latents_of_embedded_codes_are_themselves(quantizer):
    codes = torch.arange(6).reshape(1, 2, 3)
    latents = quantizer.embed(codes).detach().requires_grad_()
    nearest = quantizer.nearest(latents)
    assert torch.equal(nearest.codes, codes)
    assert torch.allclose(nearest.latents, latents)
    nearest.latents.sum().backward()
    assert torch.equal(latents.grad, torch.ones_like(latents))


def test_a_product_code_is_a_number_with_a_digit_for_each_factor():
    quantizer = ProductQuantizer([FiniteScalarQuantizer((3, 2)), FiniteScalarQuantizer((4,))])
    assert quantizer.factors == (6, 4)
    codes = torch.arange(24).reshape(1, 4, 6)
    latents = quantizer.embed(codes)
    assert torch.equal(quantizer.nearest(latents).codes, codes)
    # The first factor's latents repeat with its digit, the last factor's follow the other.
    assert torch.equal(latents[0, :2, 0], latents[0, :2, 3])
    assert latents[0, 2].unique(dim=0).shape[0] == 4
    assert (latents[0, 2] == latents[0, 2, :, :1]).all()
    with pytest.raises(IndexError):
        quantizer.embed(torch.full((1, 1, 1), 24))


def test_each_factor_has_its_own_noise_and_adds_its_losses():
    parts = [categorical(6, 3, relaxation="hard"), categorical(4, 2, relaxation="hard")]
    quantizer = ProductQuantizer(parts)
    features = torch.randn(2, 5, 3, 3)
    noise = torch.randn(2, 3, 3, 10)
    joined = quantizer(features, *Relaxation(noise, torch.tensor(1.0)))
    alone = [
        part(own, Relaxation(n, torch.tensor(1.0)))
        for part, own, n in zip(
            parts, features.split([3, 2], dim=1), noise.split([6, 4], dim=-1), strict=True
        )
    ]
    assert torch.equal(joined.latents, torch.cat([own.latents for own in alone], dim=1))
    digits = [
        part.codes(own) for part, own in zip(parts, features.split([3, 2], dim=1), strict=True)
    ]
    assert torch.equal(quantizer.codes(features), digits[0] + 6 * digits[1])
    for name in ("kl", "entropy_gap"):
        total = sum(own.losses[name] for own in alone)
        assert torch.allclose(joined.losses[name], total)

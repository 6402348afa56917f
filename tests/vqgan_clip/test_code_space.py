"""The code space: results are decoded codes, for every type of image tokenizer."""

import pytest
import torch

from dalle_mini_impl.models.code_head import split_code
from dalle_mini_impl.vqgan_clip.objective import Objective
from dalle_mini_impl.vqgan_clip.optimize import optimize
from tests.vqgan_clip.toy import QUICK, redness, seeded


def test_results_are_decoded_codes(space):
    latents = space.random(2, seeded())
    result = optimize(
        Objective(space.decode, redness), latents, QUICK, seeded(), limits=space.limits
    )
    assert (result.scores > result.start_scores).all()
    codes = space.codes(result.latents)
    torch.testing.assert_close(space.tokenizer.decode(codes), result.images, atol=1e-5, rtol=1e-4)
    assert (result.latents >= space.limits.low).all()
    assert (result.latents <= space.limits.high).all()
    flipped = optimize(
        Objective(space.decode, lambda x: -redness(x)),
        latents,
        QUICK,
        seeded(),
        limits=space.limits,
    )
    assert (redness(flipped.images) <= result.start_scores).all()


def test_every_start_is_made_of_codes(space):
    size = space.tokenizer.image_size
    starts = [
        space.random(2, seeded()),
        space.noise(2, seeded()),
        space.solid(2, (1.0, 0.0, 0.0)),
        space.from_pixels(torch.rand(2, 3, size, size)),
    ]
    for latents in starts:
        assert torch.equal(space.from_codes(space.codes(latents)), latents)
    assert not torch.equal(space.random(2, seeded(1)), starts[0])
    assert space.codes(starts[0]).unique().numel() > 8


# The palette mixes colors that lie within the range, so nothing is clamped.
@pytest.mark.parametrize("space", ["fsq", "dvae", "vqgan"], indirect=True)
def test_a_saturated_background_can_still_change(space):
    latents = space.solid(1, (1.0, 1.0, 1.0)).requires_grad_()
    with torch.no_grad():  # a decoder whose images are far too bright everywhere
        list(space.tokenizer.decoder.parameters())[-1].add_(9.0)
    (down,) = torch.autograd.grad(space.decode(latents).sum(), latents)
    if space.tokenizer.pixels.maps == 3:
        assert down.abs().sum() > 0
    (up,) = torch.autograd.grad(-space.decode(latents).sum(), latents)
    assert up.abs().sum() == 0


def test_each_code_is_the_nearest_to_its_own_latents(space):
    latents = space.random(2, seeded())
    distances = space.distances(latents)
    factors = space.tokenizer.factors
    digits = split_code(space.codes(latents), factors)
    for own, digit in zip(distances, digits, strict=True):
        assert torch.equal(own.argmin(-1), digit)
        assert own.min() >= 0


def test_the_penalty_is_zero_at_codes_and_positive_elsewhere(space):
    latents = space.random(2, seeded())
    cost = space.penalty(1.0)
    assert cost(latents).abs().max() < 1e-6
    away = (latents + 0.1 * space.limits.scale).requires_grad_()
    assert (cost(away) > 0).all()
    cost(away).sum().backward()
    assert away.grad.abs().sum() > 0

"""Sampling's promises: guidance, filters, draws."""

import torch

from dalle_mini_impl.sampling.draw import (
    DrawParameters,
    SamplingConfig,
    draw,
    filter_top_k,
    filter_top_p,
    guidance_at,
    guide,
    uniform_noise,
)

CODES = 16


def test_guidance_of_one_is_no_guidance():
    conditional, null = torch.randn(2, 5, CODES)
    assert torch.equal(guide(conditional, null, 1.0), conditional)
    assert torch.equal(guide(conditional, null, 0.0), null)
    torch.testing.assert_close(
        guide(conditional, null, 3.0), null + 3 * (conditional - null), rtol=1e-5, atol=1e-5
    )


def test_guidance_schedules():
    config = SamplingConfig(guidance=3.0)
    assert [guidance_at(config, i, 5) for i in range(5)] == [3.0] * 5
    rising = config.model_copy(update={"guidance_schedule": "rising"})
    assert [guidance_at(rising, i, 5) for i in range(5)] == [1.0, 1.5, 2.0, 2.5, 3.0]
    falling = config.model_copy(update={"guidance_schedule": "falling"})
    assert [guidance_at(falling, i, 5) for i in range(5)] == [3.0, 2.5, 2.0, 1.5, 1.0]
    early = config.model_copy(update={"guidance_until": 0.4})
    assert [guidance_at(early, i, 5) for i in range(5)] == [3.0, 3.0, 1.0, 1.0, 1.0]


def test_top_k_keeps_k():
    logits = torch.randn(4, CODES)
    kept = filter_top_k(logits, 3).isfinite()
    assert (kept.sum(1) == 3).all()
    assert torch.equal(filter_top_k(logits, 0), logits)
    assert torch.equal(filter_top_k(logits, CODES + 1), logits)


def test_top_p_keeps_the_smallest_sufficient_set():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert filter_top_p(logits, 0.5).isfinite().tolist() == [[True, False, False, False]]
    assert filter_top_p(logits, 0.79).isfinite().tolist() == [[True, True, False, False]]
    assert filter_top_p(logits, 0.81).isfinite().tolist() == [[True, True, True, False]]
    assert filter_top_p(logits, 1e-9).isfinite().sum() == 1
    assert filter_top_p(logits, 1.0).isfinite().all()


def test_a_nucleus_among_the_likeliest_few_is_renormalized():
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    few = filter_top_k(logits, 2)
    # 4 in 7 of what is left: the first alone reaches a half of it, though not of everything.
    assert filter_top_p(few, 0.5, most=2).isfinite().tolist() == [[True, False, False, False]]
    assert filter_top_p(few, 0.6, most=2).isfinite().tolist() == [[True, True, False, False]]
    torch.testing.assert_close(filter_top_p(few, 0.6, most=2), filter_top_p(few, 0.6))


def test_noise_comes_from_the_images_own_seed():
    together = uniform_noise([3, 4, 5], 6, draws=2)
    assert together.shape == (3, 6, 2)
    assert torch.equal(together[1:2], uniform_noise([4], 6, draws=2))
    assert len(together.flatten(1).unique(dim=0)) == 3


def test_every_bit_of_a_seed_changes_the_noise():
    seeds = [0, *(1 << bit for bit in range(64)), -1, (5 << 32) + 1024]
    noise = uniform_noise(seeds, 64).flatten(1)
    assert (noise >= 0).all()
    assert (noise < 1).all()
    similarity = torch.corrcoef(noise) - torch.eye(len(seeds))
    assert similarity.abs().max() < 0.6  # chance alone gives up to 0.5


def test_draws_follow_the_distribution():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(20_000, -1)
    uniform = (torch.arange(20_000) + 0.5) / 20_000
    counts = (
        draw(logits, uniform, DrawParameters.of(SamplingConfig())).bincount(minlength=4) / 20_000
    )
    torch.testing.assert_close(counts, torch.tensor([0.5, 0.3, 0.15, 0.05]), atol=1e-3, rtol=0)


def test_draws_never_leave_the_filter():
    logits = torch.randn(1000, CODES)
    uniform = torch.cat((torch.rand(998), torch.tensor([0.0, 1 - 2**-24])))
    codes = draw(logits, uniform, DrawParameters.of(SamplingConfig(top_k=2)))
    assert filter_top_k(logits, 2).gather(1, codes[:, None]).isfinite().all()


def test_zero_temperature_takes_the_likeliest():
    logits = torch.randn(10, CODES)
    codes = draw(logits, torch.rand(10), DrawParameters.of(SamplingConfig(temperature=0)))
    assert torch.equal(codes, logits.argmax(1))

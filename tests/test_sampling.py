"""Sampling's promises: guidance, filters, seeds, given codes."""

import pytest
import torch

from dalle_mini_impl.models.dalle import Dalle, TransformerConfig
from dalle_mini_impl.sampling import (
    SamplingConfig,
    decode,
    draw,
    filter_top_k,
    filter_top_p,
    guidance_at,
    guide,
    log_likelihood,
    uniform_noise,
)

GRID, CODES = 3, 16


def table_step(table):
    """A first-order chain in place of a model: the next code depends on the last one."""
    return lambda code, above, index: table[code]


def chain(seed: int = 0, scale: float = 2.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(CODES, CODES, generator=generator)


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


def test_draws_follow_the_distribution():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(20_000, -1)
    uniform = (torch.arange(20_000) + 0.5) / 20_000
    counts = draw(logits, uniform, SamplingConfig()).bincount(minlength=4) / 20_000
    torch.testing.assert_close(counts, torch.tensor([0.5, 0.3, 0.15, 0.05]), atol=1e-3, rtol=0)


def test_draws_never_leave_the_filter():
    logits = torch.randn(1000, CODES)
    uniform = torch.cat((torch.rand(998), torch.tensor([0.0, 1 - 2**-24])))
    config = SamplingConfig(top_k=2)
    codes = draw(logits, uniform, config)
    assert filter_top_k(logits, 2).gather(1, codes[:, None]).isfinite().all()


def test_zero_temperature_takes_the_likeliest():
    logits = torch.randn(10, CODES)
    codes = draw(logits, torch.rand(10), SamplingConfig(temperature=0))
    assert torch.equal(codes, logits.argmax(1))


def test_a_picture_depends_on_its_own_seed_only():
    table, config = chain(), SamplingConfig()
    first = torch.randn(CODES, generator=torch.Generator().manual_seed(5))

    def run(seeds):
        noise = uniform_noise(seeds, GRID * GRID)
        return decode(first.expand(len(seeds), -1), table_step(table), noise, GRID, config)

    together = run([3, 4, 5])
    assert torch.equal(together[1:2], run([4]))
    assert len(together.unique(dim=0)) == 3


def test_given_codes_stay():
    noise = uniform_noise(range(4), GRID * GRID)
    given = torch.full((4, GRID * GRID), -1)
    given[:, :4] = torch.arange(4)
    given[:, 7] = 9
    codes = decode(torch.randn(4, CODES), table_step(chain()), noise, GRID, SamplingConfig(), given)
    assert torch.equal(codes[given >= 0], given[given >= 0])
    assert (codes < CODES).all()


def test_the_code_above_is_passed_on():
    passed = []

    def step(code, above, index):
        passed.append(above.tolist())
        return torch.zeros(2, CODES)

    noise = uniform_noise([0, 1], GRID * GRID)
    codes = decode(torch.zeros(2, CODES), step, noise, GRID, SamplingConfig())
    expected = [[CODES, CODES]] * (GRID - 1)
    expected += codes[:, : GRID * GRID - GRID].T.tolist()
    assert passed == expected


def test_wrong_rows_are_refused():
    noise = uniform_noise([0, 1], 4)
    with pytest.raises(ValueError, match="3 rows"):
        decode(torch.zeros(3, CODES), table_step(chain()), noise, 2, SamplingConfig())


@torch.no_grad()
def test_guided_decoding_follows_the_guided_distribution():
    """Every code is the argmax of guided, uncached logits: both branches keep their own cache."""
    torch.manual_seed(0)
    config = TransformerConfig(depth=2, width=32, heads=2, hidden=48)
    model = Dalle(config, 20, 4, CODES, GRID).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    captions = torch.tensor([[3, 4, 5, 0], [0, 0, 0, 0]])
    cache = model.empty_cache(2)
    first = model.prefill(captions, cache)

    def step(code, above, index):
        return model.step(code, above, torch.tensor([index]), cache)

    settings = SamplingConfig(guidance=3.0, temperature=0)
    codes = decode(first, step, uniform_noise([0], GRID * GRID), GRID, settings)
    logits = model(captions, codes.repeat(2, 1)).image
    assert torch.equal(guide(logits[:1], logits[1:], 3.0).argmax(-1), codes)
    unguided = model(captions[:1], codes).image.argmax(-1)
    assert not torch.equal(unguided, codes)


def test_log_likelihood_sums_over_positions():
    logits = torch.randn(3, 5, CODES)
    codes = torch.randint(CODES, (3, 5))
    expected = logits.log_softmax(-1).gather(2, codes[:, :, None]).sum((1, 2))
    torch.testing.assert_close(log_likelihood(logits, codes), expected)

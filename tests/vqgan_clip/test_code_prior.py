"""The code prior: a transformer proposes likelier codes close to the current ones."""

import torch

from dalle_mini_impl.models.dalle import Dalle, TransformerConfig
from dalle_mini_impl.vqgan_clip.code_prior import CodePrior, CodePriorConfig
from tests.vqgan_clip.toy import seeded


def stripes(space):
    """A transformer that has seen one image: code 3 and code 9 by turns."""
    n, count = space.tokenizer.grid**2, space.tokenizer.code_count
    torch.manual_seed(0)
    config = TransformerConfig(depth=1, width=32, heads=2, ffn_width=32)
    dalle = Dalle(config, 8, 4, count, space.tokenizer.grid, space.tokenizer.factors)
    codes = torch.tensor([[3, 9]]).repeat(1, n // 2)
    captions = torch.zeros(1, 4, dtype=torch.long)
    optimizer = torch.optim.Adam(dalle.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        (-dalle.log_likelihood(captions, codes).mean()).backward()
        optimizer.step()
    return dalle.eval().requires_grad_(False), captions, codes


def test_proposals_are_likely_codes_within_the_given_distance(space):
    dalle, captions, codes = stripes(space)

    def proposed(**settings):
        config = CodePriorConfig(count=8, **settings)
        prior = CodePrior(dalle, space, captions, config)
        maps = prior.propose(space.random(2, seeded()), 1.0, seeded())
        assert maps.shape[0] == 16
        assert torch.equal(space.from_codes(space.codes(maps)), maps)
        return prior.log_likelihood(maps), space.codes(maps)

    start = space.codes(space.random(2, seeded()))
    loose, maps = proposed(max_weight=1e-3, min_weight=1e-4, early_factor=1)
    whole = (maps == codes).float().mean(dim=1)
    assert whole.max() > 0.9  # where the whole map was free
    assert whole.min() < 1  # a part of it
    assert (maps == start.repeat(8, 1)).any(dim=1).float().mean() > 0.4  # parts leave the rest
    close, maps = proposed(max_weight=1e6, min_weight=1e6, outside_weight=1e7, early_factor=1)
    assert torch.equal(maps, start.repeat(8, 1))
    assert loose.mean() > close.mean() + 1

    prior = CodePrior(dalle, space, captions, CodePriorConfig())
    expected = dalle.log_likelihood(captions.expand(2, -1), start).mean(dim=1)
    latents = space.from_codes(start)
    torch.testing.assert_close(prior.log_likelihood(latents), expected)
    torch.testing.assert_close(prior.cost(0.5)(latents), -0.5 * expected)


def test_rectangles_are_changed_and_early_proposals_stay_closer(space):
    config = CodePriorConfig(max_weight=4.0, min_weight=0.5, outside_weight=50.0, early_factor=8.0)
    dalle, captions, _ = stripes(space)
    prior = CodePrior(dalle, space, captions, config)
    last, first = (prior.distance_weights(200, progress, seeded()) for progress in (1.0, 0.0))
    free = last < 50
    assert 0.4 < free.all(dim=1).float().mean() < 0.7
    assert free.any(dim=1).all()
    assert 0.5 <= last[free].min() < 1 < 2 < last[free].max() <= 4
    torch.testing.assert_close(first[free], 8 * last[free])
    assert (first[~free] == 50).all()

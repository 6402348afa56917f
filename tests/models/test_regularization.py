"""Dropout and stochastic depth: what is left out in training, and never otherwise."""

import pytest
import torch

from dalle_mini_impl.models.config import TransformerConfig
from dalle_mini_impl.models.dalle import Dalle
from dalle_mini_impl.models.regularization import draw_masks

DEPTH, ROWS, CONTEXT, GRID, CODES, WORDS = 3, 4, 6, 4, 16, 20


def build(**fields) -> Dalle:
    torch.manual_seed(0)
    small = {"width": 32, "heads": 2, "ffn_width": 48, "preceding_tokens": 1}
    config = TransformerConfig(depth=DEPTH, **small, **fields)
    model = Dalle(config, WORDS, CONTEXT, CODES, GRID)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    captions = torch.randint(1, WORDS, (ROWS, CONTEXT), generator=generator)
    return captions, torch.randint(CODES, (ROWS, GRID**2), generator=generator)


def masks_of(rows: int = 3000, **fields):
    torch.manual_seed(2)
    return draw_masks(TransformerConfig(depth=DEPTH, **fields), torch.zeros(rows, 2, 8))


@pytest.mark.parametrize("rates", [{"dropout": 0.4}, {"stochastic_depth": 0.9}], ids=str)
def test_the_expected_value_stays(rates):
    masks = masks_of(**rates)
    ones = torch.ones(3000, 2, 8)
    every = [masks.embedding, *(mask for block in masks.blocks for mask in block)]
    for mask in every:
        assert mask(ones).mean().item() == pytest.approx(1, abs=0.1)


def test_dropout_zeroes_its_share_of_every_branch_independently():
    ones = torch.ones(3000, 2, 8)
    masks = masks_of(dropout=0.25)
    every = [masks.embedding, *(mask for block in masks.blocks for mask in block)]
    assert len(every) == 1 + 2 * DEPTH
    dropped = torch.stack([mask(ones) == 0 for mask in every]).float()
    assert dropped.flatten(1).mean(dim=1).sub(0.25).abs().max() < 0.01
    together = torch.corrcoef(dropped.flatten(1)).fill_diagonal_(0)
    assert together.abs().max() < 0.03


def test_stochastic_depth_drops_examples_more_often_the_deeper():
    masks = masks_of(stochastic_depth=0.6)
    shares = []
    for block in masks.blocks:
        for mask in block:
            kept = mask(torch.ones(3000, 2, 8)) != 0
            assert torch.equal(kept.any(dim=(1, 2)), kept.all(dim=(1, 2)))
            shares.append(1 - kept.float().mean().item())
    assert shares == pytest.approx([0.2, 0.2, 0.4, 0.4, 0.6, 0.6], abs=0.03)
    assert masks.embedding(torch.ones(3000, 2, 8)).eq(1).all()


def test_an_example_whose_branches_are_dropped_passes_a_block_unchanged():
    model = build(stochastic_depth=0.999)
    torch.manual_seed(0)
    x = torch.randn(50, model.length, 32)
    masks = draw_masks(model.config, x).blocks[-1]
    skipped = (masks.attention.examples == 0) & (masks.mlp.examples == 0)
    out = model.blocks[-1](x, model.positions(slice(None)), masks=masks)
    assert skipped.sum() > 40
    assert torch.equal(out[skipped], x[skipped])


@pytest.mark.parametrize("field", ["dropout", "stochastic_depth"])
def test_only_training_leaves_anything_out(field):
    captions, codes = batch()
    plain, model = build(), build(**{field: 0.5})
    for given in (plain, model):
        given.eval()
    with torch.no_grad():
        expected = plain.log_likelihood(captions, codes)
        assert torch.equal(model.log_likelihood(captions, codes), expected)
        torch.manual_seed(0)
        first = model.train().log_likelihood(captions, codes)
        assert not torch.equal(first, expected)
        assert not torch.equal(model.log_likelihood(captions, codes), first)
        torch.manual_seed(0)
        assert torch.equal(model.log_likelihood(captions, codes), first)
        # Prefill is what sampling begins with.
        started = model.prefill(captions, model.empty_cache(ROWS))
        assert torch.equal(started, plain.prefill(captions, plain.empty_cache(ROWS)))


def test_without_rates_no_random_number_is_drawn():
    model = build().train()
    before = torch.get_rng_state()
    model.trunk(*batch())
    assert torch.equal(torch.get_rng_state(), before)


def test_blocks_computed_again_have_the_same_masks():
    rates = {"dropout": 0.3, "stochastic_depth": 0.5}
    found = []
    for recompute in (False, True):
        model = build(checkpoint_activations=recompute, **rates).train()
        torch.manual_seed(3)
        trunk = model.trunk(*batch())
        loss = trunk.text.square().mean() + trunk.image.square().mean()
        names = ("embedding.start", *(name for name, _ in model.blocks.named_parameters()))
        inputs = [model.embedding.start, *model.blocks.parameters()]
        found.append(dict(zip(names, torch.autograd.grad(loss, inputs), strict=True)))
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, msg=name)

"""The transformer's promises: causality, separate streams, a cache that changes nothing."""

import pytest
import torch
from torch.nn import functional as F

from dalle_mini_impl.models.code_head import code_log_likelihood, start_from_codebooks
from dalle_mini_impl.models.dalle import Dalle, TransformerConfig
from dalle_mini_impl.sampling.draw import DrawParameters, SamplingConfig, draw
from dalle_mini_impl.training.objectives.dalle import real_tokens

GRID, CONTEXT, CODES, WORDS = 4, 6, 32, 50

VARIANTS = {
    "modern": {},
    "paper": {"block": "dalle", "attention": "dalle"},
    "modern patterns": {"attention": "dalle", "upper_neighbor": False},
    "factors": {"factors": (8, 4)},
}


def build(seed: int = 0, factors: tuple[int, ...] = (), **fields) -> Dalle:
    torch.manual_seed(seed)
    small = {"depth": 4, "width": 32, "heads": 2, "ffn_width": 48, "preceding_tokens": 2}
    config = TransformerConfig(**{**small, **fields})
    model = Dalle(config, WORDS, CONTEXT, CODES, GRID, factors).eval()
    # Residual branches start at zero; give every part a say.
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def batch(rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    captions = torch.randint(1, WORDS, (rows, CONTEXT), generator=generator)
    captions[0, 3:] = 0
    return captions, torch.randint(CODES, (rows, GRID * GRID), generator=generator)


@pytest.fixture(params=VARIANTS, ids=str)
def model(request) -> Dalle:
    return build(**VARIANTS[request.param])


@torch.no_grad()
def test_cached_logits_equal_uncached_ones(model):
    captions, codes = batch()
    expected = model(captions, codes).image
    cache = model.empty_cache(len(captions))
    hidden = [model.prefill(captions, cache)]
    above = model.embedding.codes_above(codes)
    places = torch.arange(model.length)
    for index in range(GRID * GRID - 1):
        window = places[: model.text_length + index + 1] if index % 2 else places
        at = torch.tensor([index])
        hidden.append(model.step(codes[:, index], above[:, index], at, cache, window))
    predictions = model.image_head.predictions(torch.stack(hidden, 1), codes)
    logits = torch.cat([F.linear(each.features, each.weight) for each in predictions], 2)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_log_likelihoods_are_of_all_codes_together(model):
    """Over all values of a code, whatever its factors, probabilities add up to one."""
    captions, codes = batch(1)
    every = codes.repeat(CODES, 1)
    every[:, 5] = torch.arange(CODES)
    logs = model.log_likelihood(captions.expand(CODES, -1), every)
    assert logs[:, 5].exp().sum().item() == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(logs[:, :5], logs[:1, :5].expand(CODES, -1))


@torch.no_grad()
def test_a_code_of_factors_is_drawn_as_likely_as_it_is():
    model = build(factors=(8, 4))
    hidden = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    every = torch.arange(CODES)[:, None]
    expected = code_log_likelihood(
        model.image_head.predictions(hidden.expand(CODES, 1, -1), every)
    ).exp()[:, 0]
    rows = 20000
    uniform = torch.rand(rows, 2, generator=torch.Generator().manual_seed(1))
    drawing = DrawParameters.of(SamplingConfig())
    codes = model.image_head.draw(
        hidden.expand(rows, -1), uniform, lambda logits, own: draw(logits, own, drawing)
    )
    shares = torch.bincount(codes, minlength=CODES) / rows
    torch.testing.assert_close(shares, expected, atol=0.015, rtol=0)


def test_factors_must_multiply_to_the_code_count():
    with pytest.raises(ValueError, match="do not multiply to 32"):
        build(factors=(8, 5))


@torch.no_grad()
def test_perturbing_a_code_leaves_earlier_logits_alone(model):
    captions, codes = batch()
    before = model(captions, codes)
    for index in (0, 5, GRID * GRID - 2):
        changed = codes.clone()
        changed[:, index] = (changed[:, index] + 1) % CODES
        after = model(captions, changed)
        torch.testing.assert_close(after.text, before.text, rtol=0, atol=0)
        same = slice(0, index)
        torch.testing.assert_close(after.image[:, same], before.image[:, same], rtol=0, atol=0)
        # Of the code itself, what is predicted first: later factors are given the earlier ones.
        first = model.factors[0]
        torch.testing.assert_close(
            after.image[:, index, :first], before.image[:, index, :first], rtol=0, atol=0
        )
        assert not torch.equal(after.image[:, index + 1], before.image[:, index + 1])


@torch.no_grad()
def test_perturbing_a_caption_token_reaches_all_that_follows(model):
    captions, codes = batch()
    before = model(captions, codes)
    changed = captions.clone()
    changed[:, 2] = (changed[:, 2] % (WORDS - 1)) + 1
    after = model(changed, codes)
    torch.testing.assert_close(after.text[:, :3], before.text[:, :3], rtol=0, atol=0)
    assert (after.text[:, 3] != before.text[:, 3]).any()
    assert (after.image != before.image).any(dim=-1).all()


@torch.no_grad()
def test_every_text_position_has_its_own_padding_token():
    model = build()
    captions, codes = batch()
    before = model(captions, codes).image
    model.embedding.padding.weight[4] += 1
    after = model(captions, codes).image
    assert not torch.allclose(after[0], before[0])
    torch.testing.assert_close(after[1:], before[1:], rtol=0, atol=0)


def test_every_parameter_gets_a_gradient(model):
    captions, codes = batch()
    captions[:, -1] = 0
    logits = model(captions, codes)
    (logits.text.square().mean() + logits.image.square().mean()).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_only_the_first_pad_counts_as_text():
    captions = torch.tensor([[5, 6, 0, 0], [1, 2, 3, 4], [0, 0, 0, 0]])
    expected = torch.tensor([[1.0, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    assert torch.equal(real_tokens(captions), expected)


def saved_bytes(model: Dalle) -> tuple[int, list[torch.Tensor]]:
    """What a training pass keeps for its backward pass, and the gradients it ends in."""
    captions, codes = batch()
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(captions, codes)
    (logits.text.square().mean() + logits.image.square().mean()).backward()
    size = sum(size for place, size in kept.items() if place not in parameters)
    return size, [p.grad for p in model.parameters()]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_checkpointed_blocks_keep_less_and_have_the_same_gradients(variant):
    plain, gradients = saved_bytes(build(**VARIANTS[variant]))
    spared, again = saved_bytes(build(**VARIANTS[variant], checkpoint_activations=True))
    assert spared < plain / 4
    for ours, theirs in zip(again, gradients, strict=True):
        assert torch.equal(ours, theirs)


@torch.no_grad()
def test_a_token_adds_what_stands_before_it_and_nothing_that_follows():
    model = build(preceding_tokens=2)
    caption = torch.tensor([[5, 6, 7, 8, 0, 0]])
    plain = model.embedding.text(caption)[0, 1:]
    for changed, reached in ((0, [0, 1, 2]), (2, [2, 3]), (3, [3])):
        other = caption.clone()
        other[0, changed] = 9
        moved = (model.embedding.text(other)[0, 1:] != plain).any(dim=-1)
        assert moved.nonzero().flatten().tolist() == reached
    # Padding is the same after every caption, so that the null caption is one of its own.
    assert torch.equal(plain[4:], model.embedding.text(torch.zeros_like(caption))[0, 5:])


@pytest.mark.parametrize("factors", [(), (8, 4)])
def test_codes_that_decode_alike_start_alike(factors):
    torch.manual_seed(0)
    config = TransformerConfig(depth=1, width=64, heads=2)
    model = Dalle(config, WORDS, CONTEXT, CODES, GRID, factors)
    books = [torch.randn(count, 16) for count in factors or (CODES,)]
    books[0][1] = books[0][0] + 0.01
    embedding, head = model.embedding.code, model.image_head
    for module in (embedding, model.embedding.above, head):
        start_from_codebooks(module, books)
    tables = [embedding.vectors[0], head.outputs[0]] if factors else [embedding, head]
    for table in tables:
        similar = F.cosine_similarity(table.weight[0], table.weight, dim=-1)
        assert similar[1] > 0.2
        assert similar[1] > similar[2:].max()

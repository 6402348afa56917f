"""The sampler's promises: its codes are the model's own, one by one, in any company."""

import subprocess
import sys

import pytest
import torch

from dalle_mini_impl.models.dalle import Dalle, TransformerConfig
from dalle_mini_impl.sampling.draw import DrawParameters, SamplingConfig, draw, guide, uniform_noise
from dalle_mini_impl.sampling.sampler import CodeSampler, in_bf16

GRID, CONTEXT, CODES, WORDS = 3, 4, 16, 20
CAPTIONS = torch.tensor([[3, 4, 5, 0], [7, 0, 0, 0], [9, 8, 7, 6]])
NULL, NEGATIVE = torch.tensor([[0, 0, 0, 0]]), torch.tensor([[5, 9, 0, 0]])

VARIANTS = {
    "modern": {},
    "paper": {"block": "dalle", "attention": "dalle"},
    "modern patterns": {"attention": "dalle", "upper_neighbor": False},
    "factors": {"factors": (4, 2, 2)},
}


def build(factors: tuple[int, ...] = (), **fields) -> Dalle:
    torch.manual_seed(0)
    config = TransformerConfig(**{"depth": 4, "width": 32, "heads": 2, "ffn_width": 48, **fields})
    model = Dalle(config, WORDS, CONTEXT, CODES, GRID, factors).eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def exact(**fields) -> SamplingConfig:
    """Settings whose codes are those of any other way to compute them: all in fp32."""
    return SamplingConfig(**{"precision": "fp32", **fields})


@pytest.fixture(params=VARIANTS, ids=str)
def model(request) -> Dalle:
    return build(**VARIANTS[request.param])


def uncached(model, captions, seeds, config, negative=NULL) -> torch.Tensor:
    """The same codes the slow way: the whole stream anew for every code."""
    rows = captions.repeat_interleave(len(seeds) // len(captions), dim=0)
    away = negative.expand(len(rows), -1)
    noise = uniform_noise(seeds, GRID * GRID, model.image_head.draws)
    codes = torch.zeros(len(seeds), GRID * GRID, dtype=torch.long)
    for index in range(GRID * GRID):
        place = 1
        for at, count in enumerate(model.factors):
            logits = model(rows, codes).image[:, index].split(model.factors, dim=1)[at]
            if config.guidance != 1:
                other = model(away, codes).image[:, index]
                logits = guide(logits, other.split(model.factors, dim=1)[at], config.guidance)
            digit = draw(logits, noise[:, index, at], DrawParameters.of(config))
            codes[:, index] += digit * place
            place *= count
    return codes


@pytest.mark.parametrize("negative", [NULL, NEGATIVE], ids=["null", "negative"])
@pytest.mark.parametrize(
    "settings",
    [
        {"guidance": 1.0},
        {"guidance": 3.0},
        {"guidance": 2.0, "temperature": 0.0},
        {"guidance": 2.0, "temperature": 0.7, "top_k": 6, "top_p": 0.9},
    ],
    ids=str,
)
def test_codes_are_those_of_the_uncached_model(model, settings, negative):
    config = exact(**settings)
    seeds = [5, 6, 100, 101, 7, 8]
    codes = CodeSampler(model)(CAPTIONS, seeds, config, negative=negative)
    assert torch.equal(codes, uncached(model, CAPTIONS, seeds, config, negative))
    assert settings.get("temperature") == 0 or len(codes.unique(dim=0)) > 1


def test_an_image_depends_on_its_own_caption_and_seed_only():
    sampler, config = CodeSampler(build()), exact(guidance=2.0)
    together = sampler(CAPTIONS, [5, 6, 5, 6, 7, 8], config)
    alone = [
        sampler(CAPTIONS[at // 2, None], [seed], config)
        for at, seed in enumerate([5, 6, 5, 6, 7, 8])
    ]
    assert torch.equal(together, torch.cat(alone))
    assert not torch.equal(together[0], together[2])


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_the_null_caption_as_the_negative_one_changes_nothing(guidance):
    sampler, config = CodeSampler(build()), exact(guidance=guidance)
    plain = sampler(CAPTIONS, range(6), config)
    assert torch.equal(sampler(CAPTIONS, range(6), config, negative=NULL), plain)
    away = sampler(CAPTIONS, range(6), config, negative=NEGATIVE)
    assert torch.equal(away, plain) == (guidance == 1)


def test_progress_is_told_after_every_row():
    sampler, told = CodeSampler(build()), []

    def progress(step, codes):
        told.append((step, codes[:, :step].clone()))

    codes = sampler(CAPTIONS, range(6), exact(), progress=progress)
    assert [step for step, _ in told] == [GRID, 2 * GRID, 3 * GRID]
    assert all(torch.equal(own, codes[:, :step]) for step, own in told)


def test_guidance_moves_over_the_image():
    model = build()
    sampler = CodeSampler(model)
    plain = exact(guidance=1.0)
    early = exact(guidance=6.0, guidance_until=0.4)
    # Until 0.4 of nine codes: the fifth is the first that is drawn as without guidance.
    seeds = range(8)
    codes = sampler(CAPTIONS[:1], seeds, early)
    expected = sampler(CAPTIONS[:1], seeds, plain)
    assert not torch.equal(codes[:, :4], expected[:, :4])
    noise = uniform_noise(seeds, GRID * GRID, model.image_head.draws)
    logits = model(CAPTIONS[:1].expand(8, -1), codes).image
    for index in range(4, GRID * GRID):
        own = draw(logits[:, index], noise[:, index, 0], DrawParameters.of(plain))
        assert torch.equal(own, codes[:, index])


def test_given_codes_stay_and_are_read():
    sampler, config = CodeSampler(build()), exact(guidance=2.0)
    given = torch.full((GRID * GRID,), -1)
    given[:4] = torch.arange(4)
    given[7] = 9
    codes = sampler(CAPTIONS[:1], range(8), config, given)
    assert (codes[:, given >= 0] == given[given >= 0]).all()
    assert (codes >= 0).all()
    assert (codes < CODES).all()
    other = given.clone()
    other[3] = 11
    assert not torch.equal(sampler(CAPTIONS[:1], range(8), config, other)[:, 4:], codes[:, 4:])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("compiled", ["off", "auto"])
@pytest.mark.parametrize("name", ["image_head.weight", "blocks.1.attention.out.weight"])
def test_new_weights_are_read(precision, compiled, name, monkeypatch):
    monkeypatch.setattr("dalle_mini_impl.precision.native_bf16", lambda device: True)
    model = build()
    sampler, config = CodeSampler(model), exact(precision=precision, compile=compiled)
    before = sampler(CAPTIONS[:1], range(8), config)
    model.get_parameter(name).neg_()
    changed = sampler(CAPTIONS[:1], range(8), config)
    assert not torch.equal(changed, before)
    assert torch.equal(changed, CodeSampler(model)(CAPTIONS[:1], range(8), config))


def test_bf16_is_for_products_and_close_to_fp32(model, monkeypatch):
    monkeypatch.setattr("dalle_mini_impl.precision.native_bf16", lambda device: True)
    sampler, seeds = CodeSampler(model), range(60)
    lowered = in_bf16(model)
    types = {name: weight.dtype for name, weight in lowered.named_parameters()}
    assert types["blocks.0.attention.qkv.weight"] == torch.bfloat16
    assert {types["embedding.start"], types["embedding.row.weight"]} == {torch.float32}
    assert all(kind == torch.float32 for name, kind in types.items() if "head" in name)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    logits, near = (
        model(CAPTIONS, CAPTIONS.new_ones(3, 9)),
        lowered(CAPTIONS, CAPTIONS.new_ones(3, 9)),
    )
    spread = logits.image.std()
    assert (near.image - logits.image).abs().max() < 0.1 * spread
    assert not torch.equal(near.image, logits.image)
    codes = sampler(CAPTIONS, seeds, exact(precision="bf16"))
    same = (codes == sampler(CAPTIONS, seeds, exact())).float().mean(dim=0)
    assert same[0] > 0.9
    assert same.mean() > 0.6


def test_seeds_must_share_out_among_captions():
    with pytest.raises(ValueError, match="4 seeds for 3 captions"):
        CodeSampler(build())(CAPTIONS, range(4), exact())


def test_eager_sampling_imports_nothing_of_compilation():
    script = """
import sys
from tests.sampling.test_sampler import CAPTIONS, build, exact
from dalle_mini_impl.sampling.sampler import CodeSampler
CodeSampler(build())(CAPTIONS, range(3), exact(compile="off"))
assert not [name for name in sys.modules if "sampling.compiled" in name]
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("compile", ["off", "auto"])
def test_a_small_model_samples_on_one_thread(fast_kernels, compile):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        seen = []
        CodeSampler(build())(
            CAPTIONS[:1],
            [0],
            exact(compile=compile),
            progress=lambda *_: seen.append(torch.get_num_threads()),
        )
        assert seen
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)

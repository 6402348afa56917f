"""The decoding engine's promises: its codes are the model's own, one by one, in any company."""

import os
import shutil
import subprocess
import sys
from typing import ClassVar

import pytest
import torch

from dalle_mini_impl.models.dalle import Dalle, TransformerConfig
from dalle_mini_impl.sampling.compiled import packages as step_packages
from dalle_mini_impl.sampling.compiled.packages import StepPackages, forget_oldest, is_own
from dalle_mini_impl.sampling.compiled.steps import (
    LOADS_AFTER,
    PAYS_AFTER,
    CompiledSteps,
    padded_rows,
)
from dalle_mini_impl.sampling.draw import Drawing, SamplingConfig, draw, guide, uniform_noise
from dalle_mini_impl.sampling.sampler import CodeSampler

GRID, CONTEXT, CODES, WORDS = 3, 4, 16, 20
CAPTIONS = torch.tensor([[3, 4, 5, 0], [7, 0, 0, 0], [9, 8, 7, 6]])

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


def uncached(model, captions, seeds, config) -> torch.Tensor:
    """The same codes the slow way: the whole stream anew for every code."""
    rows = captions.repeat_interleave(len(seeds) // len(captions), dim=0)
    noise = uniform_noise(seeds, GRID * GRID, model.image_head.draws)
    codes = torch.zeros(len(seeds), GRID * GRID, dtype=torch.long)
    for index in range(GRID * GRID):
        place = 1
        for at, count in enumerate(model.factors):
            logits = model(rows, codes).image[:, index].split(model.factors, dim=1)[at]
            if config.guidance != 1:
                null = model(torch.zeros_like(rows), codes).image[:, index]
                logits = guide(logits, null.split(model.factors, dim=1)[at], config.guidance)
            digit = draw(logits, noise[:, index, at], Drawing.of(config))
            codes[:, index] += digit * place
            place *= count
    return codes


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
def test_codes_are_those_of_the_uncached_model(model, settings):
    config = exact(**settings)
    seeds = [5, 6, 100, 101, 7, 8]
    codes = CodeSampler(model)(CAPTIONS, seeds, config)
    assert torch.equal(codes, uncached(model, CAPTIONS, seeds, config))
    assert settings.get("temperature") == 0 or len(codes.unique(dim=0)) > 1


def test_a_image_depends_on_its_own_caption_and_seed_only():
    sampler, config = CodeSampler(build()), exact(guidance=2.0)
    together = sampler(CAPTIONS, [5, 6, 5, 6, 7, 8], config)
    alone = [
        sampler(CAPTIONS[at // 2, None], [seed], config)
        for at, seed in enumerate([5, 6, 5, 6, 7, 8])
    ]
    assert torch.equal(together, torch.cat(alone))
    assert not torch.equal(together[0], together[2])


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
        own = draw(logits[:, index], noise[:, index, 0], Drawing.of(plain))
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
@pytest.mark.parametrize("name", ["image_head.weight", "blocks.1.attention.out.weight"])
def test_new_weights_are_read(precision, name, monkeypatch):
    monkeypatch.setattr("dalle_mini_impl.precision.native_bf16", lambda device: True)
    model = build()
    sampler, config = CodeSampler(model), exact(precision=precision)
    before = sampler(CAPTIONS[:1], range(8), config)
    model.get_parameter(name).neg_()
    changed = sampler(CAPTIONS[:1], range(8), config)
    assert not torch.equal(changed, before)
    assert torch.equal(changed, CodeSampler(model)(CAPTIONS[:1], range(8), config))


def test_bf16_is_for_products_and_close_to_fp32(model, monkeypatch):
    monkeypatch.setattr("dalle_mini_impl.precision.native_bf16", lambda device: True)
    sampler, seeds = CodeSampler(model), range(60)
    lowered = sampler.engine("bf16").model
    types = {name: weight.dtype for name, weight in lowered.named_parameters()}
    assert types["blocks.0.attention.qkv.weight"] == torch.bfloat16
    assert {types["start"], types["row_embedding.weight"]} == {torch.float32}
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


def test_batches_are_padded_to_few_sizes():
    sizes = [padded_rows(rows) for rows in range(1, 65)]
    assert all(size >= rows for rows, size in enumerate(sizes, 1))
    assert sorted(set(sizes)) == [1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64]


def test_compiling_waits_until_it_pays(monkeypatch):
    steps = CompiledSteps(build(), lambda model, buffers, window: None, lambda buffers: [])
    assert steps.pays("kind", "on")
    assert not steps.pays("kind", "auto")
    monkeypatch.setattr(steps.packages, "at_hand", lambda kind: kind == "compiled before")
    for kind in ("kind", "compiled before"):
        steps.account(kind, LOADS_AFTER)
    assert steps.pays("compiled before", "auto")
    assert not steps.pays("kind", "auto")
    steps.account("kind", PAYS_AFTER)
    assert steps.pays("kind", "auto")
    assert not steps.pays("another kind", "auto")
    assert not steps.pays("kind", "off")


COMPILED = """
import sys, torch, warnings
import torch._dynamo  # which sets the folder for what it compiles, as others may do
from dalle_mini_impl.sampling.compiled import packages as step_packages
from dalle_mini_impl.sampling.compiled.steps import LOADS_AFTER
from dalle_mini_impl.sampling.sampler import CodeSampler
from dalle_mini_impl.models.dalle import Dalle, TransformerConfig
from dalle_mini_impl.sampling.draw import SamplingConfig

def sampler_of(attention):
    torch.manual_seed(0)
    config = TransformerConfig(depth=1, width=32, heads=2, ffn_width=48, attention=attention)
    model = Dalle(config, 20, 4, 16, 3).eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return CodeSampler(model)

def check(sampler, captions, count, compile="on", **numbers):
    config = SamplingConfig(top_k=8, compile=compile, precision="fp32", **numbers)
    codes = sampler(torch.tensor(captions), range(count), config)
    eager = config.model_copy(update={"compile": "off"})
    assert torch.equal(codes, sampler(torch.tensor(captions), range(count), eager))
    assert len(codes.unique(dim=0)) > 1 or count == 1

full, near = sampler_of("full"), sampler_of("dalle")
check(full, [[3, 4, 5, 0]], 5, guidance=3.0, top_p=0.9)
check(full, [[7, 0, 0, 0], [9, 8, 7, 6]], 6, guidance=2.0, top_p=0.5)
check(full, [[7, 0, 0, 0], [9, 8, 7, 6]], 2, guidance=2.0, top_p=0.5)
check(full, [[7, 0, 0, 0]], 1, guidance=1.0)
check(near, [[7, 0, 0, 0], [9, 8, 7, 6]], 4, guidance=1.0)
steps = full.engines["fp32"].steps
assert steps.works and near.engines["fp32"].steps.works
assert len(steps.packages.loaded) == 2
if sys.argv[1] == "second":  # and without a compiler
    again = sampler_of("full")
    (guided, _) = steps.packages.loaded
    again.engine("fp32").steps.account(guided, LOADS_AFTER)
    check(again, [[3, 4, 5, 0]], 5, compile="auto", guidance=3.0, top_p=0.9)
    assert list(again.engines["fp32"].steps.packages.loaded) == [guided]
    full.model.image_head.weight.neg_()
    with warnings.catch_warnings(record=True) as caught:
        check(full, [[3, 4, 5, 0]], 5, guidance=3.0, top_p=0.9)
    assert "no C++ compiler" in str(caught[0].message)
"""


def test_one_compiled_step_draws_the_eager_codes_at_every_position_and_setting(tmp_path):
    """In a process of its own: torch cannot compile through the checks of shape annotations."""
    if not shutil.which("g++"):
        pytest.skip("no C++ compiler")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)
    for turn, path in (("first", environment["PATH"]), ("second", "")):
        done = subprocess.run(
            [sys.executable, "-c", COMPILED, turn],
            env={**environment, "PATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        # One for any number of images from two on, captions and numbers.
        assert len(list((tmp_path / "dalle_mini_impl" / "steps").glob("*.pt2"))) == 3
        assert (tmp_path / "dalle_mini_impl" / "inductor").exists()


def test_a_compiled_step_is_known_by_what_it_was_made_of(monkeypatch):
    monkeypatch.setattr(step_packages, "source_digest", lambda: "source")

    def path(model, kind="kind"):
        return StepPackages(model, lambda *_: None, lambda _: []).path(kind)

    model, first = build(), path(build())
    assert path(model) == first
    assert path(model, "another") != first
    paper = {"block": "dalle", "attention": "full"}
    assert path(build(**paper)) != path(build(**paper, heads=4))  # of the same weights
    with monkeypatch.context() as other:
        other.setenv("ONEDNN_MAX_CPU_ISA", "another")
        assert path(model) != first
    with monkeypatch.context() as other:
        other.setattr(step_packages, "source_digest", lambda: "another")
        assert path(model) != first
    assert path(model) == first
    model.blocks[0].attention.out.weight[0, 0] += 1e-6
    assert path(model) != first


def test_source_that_changed_under_a_process_names_no_package(tmp_path, monkeypatch):
    monkeypatch.setattr(step_packages, "PROJECT", tmp_path)
    source = tmp_path / "code.py"
    source.write_text("old = 1")
    os.utime(source, (0, 0))
    before = step_packages.source_digest()
    assert step_packages.source_digest() == before
    source.write_text("new = 2")
    os.utime(source, (0, 0))
    assert step_packages.source_digest() != before
    os.utime(source)
    assert step_packages.source_digest() != step_packages.source_digest()


def test_a_damaged_package_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(StepPackages, "_compile", lambda *_: Made())
    packages = StepPackages(build(), lambda *_: None, lambda _: [])
    path = packages.path("kind")
    path.parent.mkdir(mode=0o700, parents=True)
    path.write_bytes(b"half a file")
    path.chmod(0o600)
    with pytest.warns(UserWarning, match=f"{path.name} cannot be loaded"):
        steps = list(packages.run("kind", torch.zeros(1), torch.arange(5), range(2, 6)))
    assert len(steps) == 4
    assert Made.windows == [3, 3, 4, 5]


class Made:
    """Stands for a compiled step and notes the windows that it is given."""

    windows: ClassVar[list[int]] = []

    def __init__(self):
        self.loader = self

    def run(self, tensors):
        self.windows.append(len(tensors[0]))


def test_what_others_may_have_written_is_not_run(tmp_path):
    path = tmp_path / "steps" / "step.pt2"
    path.parent.mkdir(mode=0o700)
    assert not is_own(path)
    path.touch(mode=0o600)
    assert is_own(path)
    for place in (path, path.parent):
        mode = place.stat().st_mode
        place.chmod(mode | 0o020)
        assert not is_own(path)
        place.chmod(mode)


def test_of_compiled_steps_those_used_last_are_kept(tmp_path):
    for age, name in enumerate(("newest", "second", "third", "oldest")):
        path = tmp_path / f"{name}.pt2"
        path.write_bytes(bytes(100))
        os.utime(path, (1000 - age, 1000 - age))
    forget_oldest(tmp_path, 250)
    assert {path.stem for path in tmp_path.iterdir()} == {"newest", "second"}
    forget_oldest(tmp_path, 50)
    assert {path.stem for path in tmp_path.iterdir()} == {"newest"}


def test_eager_takes_over_where_compiling_fails(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    sampler, config = CodeSampler(build()), exact(compile="on")
    monkeypatch.setenv("PATH", "")
    with pytest.warns(UserWarning, match="stays eager"):
        codes = sampler(CAPTIONS, range(6), config)
    eager = sampler(CAPTIONS, range(6), config.model_copy(update={"compile": "off"}))
    assert torch.equal(codes, eager)
    assert not sampler.engines["fp32"].steps.pays("kind", "on")

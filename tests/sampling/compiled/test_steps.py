"""When steps are compiled, and that compiled ones draw the eager codes."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from dalle_mini_impl.sampling.compiled.cuda_graphs import padded_rows
from dalle_mini_impl.sampling.compiled.steps import (
    LOADS_AFTER,
    PAYS_AFTER,
    CompiledSteps,
    Specialization,
)
from dalle_mini_impl.sampling.sampler import CodeSampler
from tests.sampling.test_sampler import CAPTIONS, build, exact


def test_batches_are_padded_to_few_sizes():
    sizes = [padded_rows(rows) for rows in range(1, 65)]
    assert all(size >= rows for rows, size in enumerate(sizes, 1))
    assert sorted(set(sizes)) == [1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64]


def test_compiling_waits_until_it_pays(monkeypatch):
    steps = CompiledSteps(build(), [])
    several, one = (Specialization(rows, False, False, 0, False) for rows in (2, 1))
    assert steps.pays(several, "on")
    assert not steps.pays(several, "auto")
    monkeypatch.setattr(steps.packages, "at_hand", lambda key: key == one)
    for key in (several, one):
        steps.spent[key] += LOADS_AFTER
    assert steps.pays(one, "auto")
    assert not steps.pays(several, "auto")
    steps.spent[several] += PAYS_AFTER
    assert steps.pays(several, "auto")
    assert not steps.pays(several._replace(guided=True), "auto")


def test_the_time_of_eager_calls_is_counted():
    steps = CompiledSteps(build(), [])
    with steps.choose(exact(compile="auto"), 3) as chosen:
        assert chosen is None
    assert steps.spent[Specialization.of(exact(), 2)] > 0


COMPILED = """
import sys, torch, warnings
import torch._dynamo  # which sets the folder for what it compiles, as others may do
from dalle_mini_impl.sampling.compiled.steps import LOADS_AFTER, CompiledSteps, weight_versions
from dalle_mini_impl.sampling.sampler import CodeSampler
from dalle_mini_impl.models.dalle import Dalle, TransformerConfig
from dalle_mini_impl.sampling.config import SamplingConfig

def sampler_of(attention):
    torch.manual_seed(0)
    config = TransformerConfig(depth=1, width=32, heads=2, ffn_width=48, attention=attention)
    model = Dalle(config, 20, 4, 16, 3).eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return CodeSampler(model)

def check(sampler, captions, count, compile="on", negative=None, **numbers):
    config = SamplingConfig(top_k=8, compile=compile, precision="fp32", **numbers)
    negative = negative and torch.tensor(negative)
    codes = sampler(torch.tensor(captions), range(count), config, negative=negative)
    eager = config.model_copy(update={"compile": "off"})
    others = sampler(torch.tensor(captions), range(count), eager, negative=negative)
    assert torch.equal(codes, others)
    assert len(codes.unique(dim=0)) > 1 or count == 1

full, near = sampler_of("full"), sampler_of("dalle")
check(full, [[3, 4, 5, 0]], 5, guidance=3.0, top_p=0.9)
check(full, [[7, 0, 0, 0], [9, 8, 7, 6]], 6, guidance=2.0, top_p=0.5)
check(full, [[7, 0, 0, 0], [9, 8, 7, 6]], 2, guidance=2.0, top_p=0.5)
check(full, [[3, 4, 5, 0]], 5, guidance=3.0, top_p=0.9, negative=[[5, 9, 0, 0]])
check(full, [[7, 0, 0, 0]], 1, guidance=1.0)
check(near, [[7, 0, 0, 0], [9, 8, 7, 6]], 4, guidance=1.0)
steps = full.compiled["fp32"]
assert steps.works and near.compiled["fp32"].works
assert len(steps.packages.loaded) == 2
if sys.argv[1] == "second":  # and without a compiler
    again = sampler_of("full")
    (guided, _) = steps.packages.loaded
    versions = weight_versions(again.model)
    again.compiled["fp32"] = CompiledSteps(again.model, versions)
    again.compiled["fp32"].spent[guided] = LOADS_AFTER
    check(again, [[3, 4, 5, 0]], 5, compile="auto", guidance=3.0, top_p=0.9)
    assert list(again.compiled["fp32"].packages.loaded) == [guided]
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


def test_eager_takes_over_where_compiling_fails(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    sampler, config = CodeSampler(build()), exact(compile="on")
    monkeypatch.setenv("PATH", "")
    with pytest.warns(UserWarning, match="stays eager"):
        codes = sampler(CAPTIONS, range(6), config)
    eager = sampler(CAPTIONS, range(6), config.model_copy(update={"compile": "off"}))
    assert torch.equal(codes, eager)
    assert not sampler.compiled["fp32"].pays(Specialization.of(config, 2), "on")

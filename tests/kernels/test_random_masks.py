"""Random masks: the operator draws what torch draws, and only compiled code on a CPU takes it."""

import pytest
import torch

import dalle_mini_impl.kernels.random_masks as module
from dalle_mini_impl.kernels.random_masks import fast, plain

CPU = torch.device("cpu")


def test_fast_equals_plain():
    torch.manual_seed(5)
    expected = plain(3, (4, 50, 30), 0.3, CPU)
    torch.manual_seed(5)
    assert torch.equal(fast(3, (4, 50, 30), 0.3), expected)


def test_every_mask_is_its_own_and_has_the_rate():
    torch.manual_seed(0)
    masks = plain(3, (4, 50, 30), 0.3, CPU)
    assert masks.float().mean(dim=(1, 2, 3)).sub(0.7).abs().max() < 0.02
    together = (masks[:-1] & masks[1:]).float().mean().item()
    assert together == pytest.approx(0.49, abs=0.02)


def test_only_compiled_code_on_a_cpu_takes_the_operator(monkeypatch, fast_kernels):
    monkeypatch.setattr(module, "fast", lambda *inputs: "fast")
    monkeypatch.setattr(module, "plain", lambda *inputs: "plain")
    draw = module.random_masks.__wrapped__  # without the check of its result
    assert draw(1, (2,), 0.1, CPU) == "plain"
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert draw(1, (2,), 0.1, CPU) == "fast"
    assert draw(1, (2,), 0.1, torch.device("cuda")) == "plain"
    monkeypatch.setenv("DALLE_KERNELS", "plain")
    assert draw(1, (2,), 0.1, CPU) == "plain"


def test_the_compiler_knows_the_operators_shape():
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(module.masks_on_cpu, (2, [3, 5], 0.5), test_utils=checks)

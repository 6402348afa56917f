"""Unfused attention equals torch's kernel, forward and backward, and runs where it is faster."""

import pytest
import torch

from dalle_mini_impl.kernels import attention as module
from dalle_mini_impl.kernels.attention import attention, fast, plain
from dalle_mini_impl.models.attention import pattern_mask

LENGTH = 19
ROUNDED = {"atol": 0.03, "rtol": 0.03}


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, {}), (torch.bfloat16, ROUNDED)])
@pytest.mark.parametrize(("causal", "pattern"), [(True, None), (False, None), (False, "row")])
def test_fast_equals_plain(causal, pattern, dtype, near):
    mask = pattern_mask(pattern, 3, LENGTH, 4) if pattern else None
    inputs = torch.randn(3, 2, 4, LENGTH, 8, requires_grad=True)
    upstream = torch.randn(2, 4, LENGTH, 8)
    expected = plain(*inputs, mask, causal)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = fast(*inputs.to(dtype), mask, causal)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, **near)
    (ours,) = torch.autograd.grad(found, inputs, upstream.to(dtype))
    (theirs,) = torch.autograd.grad(expected, inputs, upstream)
    torch.testing.assert_close(ours, theirs, **near)


@pytest.fixture
def taken(monkeypatch, fast_kernels):
    """Which function ran, in order."""
    names = []
    for name in ("plain", "fast"):
        function = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *x, n=name, f=function: (names.append(n), f(*x))[1]
        )
    return names


def test_eager_training_is_unfused_in_bf16_and_fused_in_fp32(taken):
    for dtype in (torch.bfloat16, torch.float32):
        inputs = torch.randn(3, 2, 4, LENGTH, 64, dtype=dtype, requires_grad=True)
        attention(*inputs, causal=True)
        attention(*inputs.detach(), causal=True)
    assert taken == ["fast", "plain", "plain", "plain"]


def test_the_environment_forces_the_plain_function(taken, plain_kernels):
    attention(*torch.randn(3, 2, 4, LENGTH, 8, dtype=torch.bfloat16, requires_grad=True))
    assert taken == ["plain"]

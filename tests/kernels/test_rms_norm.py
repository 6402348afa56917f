"""Root-mean-square normalization with its gradient written out is torch's own."""

import pytest
import torch

from dalle_mini_impl.kernels import rms_norm as module
from dalle_mini_impl.kernels.rms_norm import fast, plain, rms_norm


@pytest.mark.parametrize("eps", [None, 0.1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_fast_equals_plain(dtype, eps):
    torch.manual_seed(0)
    wide = torch.promote_types(dtype, torch.float32)
    gain = torch.randn(6, dtype=wide, requires_grad=True)
    x = torch.randn(2, 3, 6).to(dtype).requires_grad_()
    upstream = torch.randn(2, 3, 6).to(dtype)

    def results(y):
        return [y, *torch.autograd.grad(y, (x, gain), upstream)]

    close = 1e-9 if dtype == torch.float64 else 0.02
    expected = results(plain(x.to(wide), gain, eps).to(dtype))
    for ours, theirs in zip(results(fast(x, gain, eps)), expected, strict=True):
        torch.testing.assert_close(ours.to(wide), theirs.to(wide), rtol=close, atol=close)


def test_only_training_takes_the_fast_function(monkeypatch, fast_kernels):
    x, gain = torch.randn(2, 6), torch.ones(6)
    with monkeypatch.context() as other:
        other.setattr(module, "plain", None)
        rms_norm(x, gain)
    monkeypatch.setattr(module, "fast", None)
    with torch.no_grad():
        rms_norm(x, gain)
    monkeypatch.setenv("DALLE_KERNELS", "plain")
    rms_norm(x, gain)

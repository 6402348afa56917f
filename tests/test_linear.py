"""Linear layers whose products other libraries do."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from dalle_mini_impl.models.linear import Linear, Product

onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN")


def layer(bias: bool) -> Linear:
    torch.manual_seed(0)
    linear = Linear(24, 40, bias=bias)
    linear.by_onednn = True
    return linear


@onednn
@pytest.mark.parametrize("bias", [True, False])
def test_products_and_gradients_are_those_of_torch(bias, monkeypatch):
    linear, upstream = layer(bias), torch.randn(3, 5, 40)
    inputs = torch.randn(3, 5, 24, requires_grad=True)
    expected = F.linear(inputs, linear.weight, linear.bias)
    wanted = [inputs, *linear.parameters()]
    theirs = torch.autograd.grad(expected, wanted, upstream)
    monkeypatch.setattr(F, "linear", None)
    found = linear(inputs)
    torch.testing.assert_close(found, expected)
    ours = torch.autograd.grad(found, wanted, upstream.mT.contiguous().mT)
    torch.testing.assert_close(ours, theirs)


@onednn
def test_flops_are_counted_as_torch_counts_them():
    inputs, linear = torch.randn(3, 5, 24, requires_grad=True), layer(bias=False)
    counted = []
    for linear.by_onednn in (False, True):
        with FlopCounterMode(display=False) as flops:
            linear(inputs).sum().backward()
        counted.append(flops.get_total_flops())
    assert counted[0] == counted[1] == 3 * 2 * 15 * 24 * 40


def test_only_training_in_fp32_takes_onednn(monkeypatch):
    monkeypatch.setattr(Product, "apply", None)
    linear, inputs = layer(bias=True), torch.randn(3, 24)
    with torch.no_grad():
        linear(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(inputs).dtype == torch.bfloat16
    assert linear.to(torch.bfloat16)(inputs).dtype == torch.bfloat16

"""Linear layers whose products other libraries do."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from dalle_mini_impl.kernels import linear as linear_module
from dalle_mini_impl.kernels.linear import Linear, Product, onednn_is_faster

there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
onednn = pytest.mark.skipif(not there, reason="no oneDNN in this torch")


@pytest.fixture
def products(monkeypatch):
    """The shapes of what oneDNN multiplies."""
    seen, multiply = [], linear_module.multiply

    def counted(x, weight):
        seen.append((tuple(x.shape), tuple(weight.shape)))
        return multiply(x, weight)

    monkeypatch.setattr(linear_module, "multiply", counted)
    return seen


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


@onednn
def test_the_output_and_the_inputs_gradient_are_by_onednn(products):
    linear, inputs = layer(bias=False), torch.randn(3, 24)
    linear(inputs).sum().backward()
    assert products == [((3, 24), (40, 24))], "nobody asked for the inputs' gradient"
    linear(inputs.requires_grad_()).sum().backward()
    assert products[2:] == [((3, 40), (24, 40))]


@onednn
@pytest.mark.parametrize(
    ("capability", "vendor", "faster"),
    [("AVX512", "AuthenticAMD", True), ("AVX2", "AuthenticAMD", False), ("AVX512", "", False)],
)
def test_onednn_is_taken_where_it_was_measured(capability, vendor, faster, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(linear_module, "processor_vendor", lambda: vendor)
    assert onednn_is_faster() == Linear(2, 2).by_onednn == faster
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not onednn_is_faster()


COMPILED = """
import torch

from dalle_mini_impl.models import linear, scaled_dot_product
from dalle_mini_impl.models.dalle import Dalle, TransformerConfig

torch.manual_seed(0)
config = TransformerConfig(depth=1, width=96, heads=2, ffn_width=16, max_image_tokens=16)
model = Dalle(config, 20, 5, 30, 4)
for module in model.modules():
    if isinstance(module, linear.Linear):
        torch.nn.init.normal_(module.weight, std=0.1)
        module.by_onednn = False
captions, codes = torch.randint(1, 20, (2, 5)), torch.randint(30, (2, 16))


def gradients(forward):
    logits = forward(captions, codes)
    loss = logits.text.square().mean() + logits.image.square().mean()
    return torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)


expected = gradients(model)
for module in model.modules():
    if isinstance(module, linear.Linear):
        module.by_onednn = True
written = []
parts = scaled_dot_product.attend_in_parts
scaled_dot_product.attend_in_parts = lambda *inputs: (written.append(1), parts(*inputs))[1]
found = gradients(torch.compile(model, backend="aot_eager", fullgraph=True))
assert written, "attention was not written out"
torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
"""


@onednn
def test_a_model_that_takes_it_compiles_whole():
    """In a process of its own: torch cannot compile through the checks of shape annotations."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_only_training_in_fp32_takes_onednn(monkeypatch):
    monkeypatch.setattr(Product, "apply", None)
    linear, inputs = layer(bias=True), torch.randn(3, 24)
    linear(inputs[0])
    linear.weight.requires_grad_(False)
    linear(inputs)
    linear.weight.requires_grad_()
    with torch.no_grad():
        linear(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(inputs).dtype == torch.bfloat16
    assert linear.to(torch.bfloat16)(inputs).dtype == torch.bfloat16

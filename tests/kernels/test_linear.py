"""The product of a single row, and a whole model compiled with every fast kernel."""

import subprocess
import sys

import torch

from dalle_mini_impl.kernels.linear import fast, plain

COMPILED = """
import torch

from dalle_mini_impl.kernels import attention, linear
from dalle_mini_impl.models.dalle import Dalle, TransformerConfig

torch.manual_seed(0)
config = TransformerConfig(depth=1, width=96, heads=2, ffn_width=16, max_image_tokens=16)
model = Dalle(config, 20, 5, 30, 4)
for name, weight in model.named_parameters():
    if name.startswith("blocks") and weight.ndim == 2:
        torch.nn.init.normal_(weight, std=0.1)
captions, codes = torch.randint(1, 20, (2, 5)), torch.randint(30, (2, 16))

taken = []
for module in (attention, linear):
    def spied(*inputs, name=module.__name__, fast=module.fast):
        taken.append(name)
        return fast(*inputs)
    module.fast = spied


def gradients(forward):
    logits = forward(captions, codes)
    loss = logits.text.square().mean() + logits.image.square().mean()
    return torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)


expected = gradients(model)
assert not taken, "eager fp32 training needs none of them"
found = gradients(torch.compile(model, backend="aot_eager", fullgraph=True))
assert attention.__name__ in taken, "attention was not written out"
torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)

row = torch.randn(1, 96)
product = model.blocks[0].attention.qkv
torch.testing.assert_close(torch.compile(product, backend="aot_eager")(row), product(row))
assert linear.__name__ in taken, "a single row was not written out"
"""


def test_fast_equals_plain():
    x, weight, bias = torch.randn(1, 1, 24), torch.randn(40, 24), torch.randn(40)
    torch.testing.assert_close(fast(x, weight, bias), plain(x, weight, bias))
    torch.testing.assert_close(fast(x, weight, None), plain(x, weight, None))


def test_a_compiled_model_takes_fast_kernels_and_keeps_its_gradients(fast_kernels):
    """In a process of its own: torch cannot compile through the checks of shape annotations."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

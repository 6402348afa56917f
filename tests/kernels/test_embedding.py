"""Look-ups that are compiled for training have torch's gradient, by an operator left as it is."""

import pytest
import torch
from torch import nn

from dalle_mini_impl.kernels import embedding as module
from dalle_mini_impl.kernels.embedding import Embedding, LookUp


@pytest.mark.parametrize("shape", [(7,), (2, 5)])
def test_gradient_is_torchs(shape):
    torch.manual_seed(0)
    table, ids = Embedding(6, 4), torch.randint(0, 6, shape)
    upstream = torch.randn(*shape, 4)
    looked_up, plain = LookUp.apply(table.weight, ids), nn.functional.embedding(ids, table.weight)
    (gradient,) = torch.autograd.grad(looked_up, table.weight, upstream)
    (expected,) = torch.autograd.grad(plain, table.weight, upstream)
    assert torch.equal(looked_up, plain)
    torch.testing.assert_close(gradient, expected)


def test_only_compiled_training_takes_the_operator(monkeypatch, fast_kernels):
    taken = []
    monkeypatch.setattr(
        module.LookUp, "apply", lambda weight, ids: taken.append(ids) or weight[ids]
    )
    table, ids = Embedding(6, 4), torch.arange(6)
    table(ids)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with torch.no_grad():
        table(ids)
    assert not taken
    table(ids)
    assert len(taken) == 1
    monkeypatch.setenv("DALLE_KERNELS", "plain")
    table(ids)
    assert len(taken) == 1


def test_the_compiler_knows_the_operators_shape():
    gradient, ids = torch.randn(2, 5, 4), torch.randint(0, 6, (2, 5))
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(module.embedding_gradient, (gradient, ids, 6), test_utils=checks)

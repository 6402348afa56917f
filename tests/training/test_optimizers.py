"""Muon's update, which parameters it gets, and its state."""

import copy

import pytest
import torch
from torch import nn

from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.training import optimizers as optimizers
from dalle_mini_impl.training.optimizers import (
    Muon,
    build_optimizer,
    orthogonalize,
    set_learning_rate,
)


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(7, 8)
        self.positions = nn.Parameter(torch.zeros(4, 8))
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.convolution = nn.Conv2d(3, 8, 2)
        self.head = nn.Linear(8, 7)
        self.head.output_head = True
        self.adamw_parameters = ("positions",)

    def forward(self):
        h = self.second(torch.relu(self.first(self.tokens.weight[:4] + self.positions)))
        h = h + self.convolution(torch.ones(1, 3, 2, 2)).flatten()
        return self.head(h).square().mean()


def names_by_optimizer(model, config):
    names = {id(p): n for n, p in model.named_parameters()}
    return {
        (type(o).__name__, g["weight_decay"] > 0): {names[id(p)] for p in g["params"]}
        for o in build_optimizer(model, config)
        for g in o.param_groups
    }


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 24, 8), (2, 8, 40)])
def test_orthogonalize_brings_singular_values_near_one_and_keeps_directions(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 50
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    found = orthogonalize([matrices])[0].float()
    assert found.shape == matrices.shape
    singular = torch.linalg.svdvals(found)
    assert singular[..., :-1].min() > 0.5  # the smallest may start too near zero
    assert singular.max() < 1.35
    in_their_basis = u.mT @ found @ v.mT
    off_diagonal = in_their_basis - torch.diag_embed(in_their_basis.diagonal(dim1=1, dim2=2))
    assert off_diagonal.abs().max() < 0.1


@pytest.mark.parametrize(("low", "tolerance"), [(False, 1e-3), (True, 0.1)])
@pytest.mark.parametrize("shape", [(2, 64, 64), (2, 192, 64), (2, 64, 160)])
def test_orthogonalize_takes_five_steps_of_small_singular_values_too(
    monkeypatch, shape, low, tolerance
):
    monkeypatch.setattr(optimizers, "native_bf16", lambda device: low)
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    singular = torch.logspace(0, -4, 64)
    expected = singular / singular.norm()
    for _ in range(5):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    found = u.mT @ orthogonalize([u * singular @ v])[0].float() @ v.mT
    torch.testing.assert_close(
        found, torch.diag(expected).expand(2, 64, 64), atol=tolerance, rtol=0
    )


def test_matrices_are_orthogonalized_each_alone_whatever_stands_beside_them():
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 8, 24), (1, 24, 8), (3, 8, 8), (1, 160, 200), (2, 200, 160)]
    stacks = [torch.randn(shape, generator=generator) for shape in shapes]
    together = orthogonalize(stacks)
    for stack, found in zip(stacks, together, strict=True):
        assert found.shape == stack.shape
        alone = torch.cat([orthogonalize([matrix[None]])[0] for matrix in stack])
        torch.testing.assert_close(found, alone)


@pytest.mark.parametrize("low", [False, True])
def test_orthogonalize_bears_gradients_that_nearly_have_rank_one(monkeypatch, low):
    monkeypatch.setattr(optimizers, "native_bf16", lambda device: low)
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(4000, n, 4, generator=generator) for n in (4, 8))
    singular = 0.1 * torch.rand(4000, 1, 4, generator=generator)
    singular[:, :, 0] = 1
    matrices = torch.linalg.qr(left).Q * singular @ torch.linalg.qr(right).Q.mT
    assert torch.linalg.svdvals(orthogonalize([matrices])[0].float()).max() < 1.3


def test_zero_gradient_changes_nothing():
    assert orthogonalize([torch.zeros(1, 4, 4)])[0].abs().sum() == 0


def test_muon_gets_hidden_matrices_and_adamw_the_rest():
    groups = names_by_optimizer(Toy(), TrainingConfig(weight_decay=0.1))
    assert groups == {
        ("Muon", True): {"first.weight", "second.weight", "convolution.weight"},
        ("AdamW", True): {"head.weight"},
        ("AdamW", False): {
            "tokens.weight", "positions", "first.bias", "convolution.bias", "head.bias"
        },
    }  # fmt: skip


def test_adamw_alone_decays_matrices_only():
    groups = names_by_optimizer(Toy(), TrainingConfig(optimizer="adamw", weight_decay=0.1))
    assert groups["AdamW", True] == {
        "first.weight", "second.weight", "convolution.weight", "head.weight"
    }  # fmt: skip
    assert "tokens.weight" in groups["AdamW", False]


def test_a_misspelled_declaration_is_refused():
    model = Toy()
    model.adamw_parameters = ("position",)
    with pytest.raises(ValueError, match="'position'"):
        build_optimizer(model, TrainingConfig())


def test_batched_update_equals_one_by_one():
    torch.manual_seed(0)
    together = [nn.Parameter(torch.randn(6, 4)) for _ in range(3)]
    alone = copy.deepcopy(together)
    optimizers = [Muon(together, weight_decay=0.1)]
    optimizers += [Muon([p], weight_decay=0.1) for p in alone]
    for _ in range(3):
        for a, b in zip(together, alone, strict=True):
            a.grad = torch.randn(6, 4)
            b.grad = a.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(together, alone, strict=True):
        assert torch.allclose(a, b, atol=1e-3)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_configured_weight_decay_shrinks_matrices_by_the_scheduled_rate(optimizer):
    config = TrainingConfig(
        optimizer=optimizer, weight_decay=0.1, muon_learning_rate=0.02, learning_rate=0.02
    )
    model = nn.Linear(4, 6)
    weight, bias = (p.detach().clone() for p in (model.weight, model.bias))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizers = build_optimizer(model, config)
    set_learning_rate(optimizers, 0.5)
    for _ in range(100):
        for own in optimizers:
            own.step()
    torch.testing.assert_close(model.weight.detach(), weight * (1 - 0.5 * 0.02 * 0.1) ** 100)
    assert torch.equal(model.bias.detach(), bias)


def test_update_has_the_set_size_and_weight_decay_is_decoupled():
    p = nn.Parameter(torch.ones(16, 4))
    p.grad = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    Muon([p], lr=0.1, weight_decay=0.5).step()
    update = (0.95 * torch.ones(16, 4) - p.detach()) / 0.1
    # sqrt(16 / 4) times singular values around 1
    assert 1.2 < torch.linalg.svdvals(update).mean() < 2.6


def test_state_dict_restores_the_very_next_step():
    def run(model, optimizers, steps):
        for _ in range(steps):
            model().backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()

    torch.manual_seed(0)
    config = TrainingConfig()
    model = Toy()
    optimizers = build_optimizer(model, config)
    run(model, optimizers, 3)
    restored = copy.deepcopy(model)
    others = build_optimizer(restored, config)
    for ours, theirs in zip(optimizers, others, strict=True):
        theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    run(model, optimizers, 2)
    run(restored, others, 2)
    for a, b in zip(model.parameters(), restored.parameters(), strict=True):
        assert torch.equal(a, b)


def test_found_inf_leaves_every_parameter_alone():
    model = Toy()
    before = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    for optimizer in build_optimizer(model, TrainingConfig(weight_decay=0.1)):
        optimizer.found_inf = torch.ones(())
        optimizer.step()
    for a, b in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(a, b)


def test_learning_rate_is_a_factor_of_each_peak():
    config = TrainingConfig(learning_rate=1e-3, muon_learning_rate=0.02)
    optimizers = build_optimizer(Toy(), config)
    for factor in (0.5, 0.25):
        set_learning_rate(optimizers, factor)
    rates = {type(o).__name__: o.param_groups[0]["lr"] for o in optimizers}
    assert rates == {"Muon": pytest.approx(0.005), "AdamW": pytest.approx(2.5e-4)}

"""The vector quantizer: every option, codes on the sphere, living codebooks."""

import pytest
import torch
from torch.nn import functional as F

from dalle_mini_impl.models.tokenizers.kmeans import assign, kmeans, random_rows
from dalle_mini_impl.models.tokenizers.quantizer import nearest_rows
from dalle_mini_impl.models.tokenizers.vector_quantizer import (
    EmaVectorQuantizer,
    VectorQuantizer,
    rotate,
)

KINDS = [VectorQuantizer, EmaVectorQuantizer]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gradients", ["straight-through", "rotation"])
@pytest.mark.parametrize("initialization", ["kmeans", "data", "random"])
@pytest.mark.parametrize("dead_code_threshold", [0.0, 0.1])
def test_every_option_trains_its_features_and_codes(
    kind, gradients, initialization, dead_code_threshold
):
    quantizer = kind(16, 4, gradients, initialization, dead_code_threshold)
    before = quantizer.rows().clone()
    features = torch.randn(2, 4, 5, 5, requires_grad=True)
    latents, losses = quantizer(features)
    assert torch.allclose(latents, quantizer.embed(quantizer.codes(features)), atol=1e-5)
    (latents * torch.randn_like(latents)).sum().backward(retain_graph=True)
    assert features.grad.abs().sum() > 0
    sum(losses.values()).backward()
    if kind is VectorQuantizer:
        assert quantizer.codebook.weight.grad.abs().sum() > 0
    else:
        assert list(quantizer.parameters()) == []
        assert not torch.equal(quantizer.rows(), before)


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_changes_nothing_and_ignores_length(kind):
    quantizer = kind(16, 4).eval()
    state = {name: value.clone() for name, value in quantizer.state_dict().items()}
    features = torch.randn(2, 4, 3, 3)
    codes = quantizer.codes(features)
    assert torch.equal(quantizer.codes(7 * features), codes)
    assert all(torch.equal(value, state[name]) for name, value in quantizer.state_dict().items())
    assert torch.equal(quantizer.nearest(quantizer.embed(codes)).codes, codes)
    assert quantizer.embed(codes).norm(dim=1).flatten().tolist() == pytest.approx([1.0] * 18)


def test_commitment_moves_the_encoder_and_codebook_the_codes():
    quantizer = VectorQuantizer(8, 3, initialization="random").eval()
    features = torch.randn(2, 3, 2, 2, requires_grad=True)
    losses = quantizer(features).losses
    codebook = quantizer.codebook.weight

    def reaches(loss, tensor):
        gradient = torch.autograd.grad(loss, tensor, retain_graph=True, allow_unused=True)[0]
        return gradient is not None and bool(gradient.abs().sum() > 0)

    assert reaches(losses["commitment"], features)
    assert not reaches(losses["commitment"], codebook)
    assert reaches(losses["codebook"], codebook)
    assert not reaches(losses["codebook"], features)


def test_rotation_is_the_code_with_a_turned_gradient():
    features = F.normalize(torch.randn(2, 5, 3, 3), dim=1).requires_grad_()
    codes = F.normalize(torch.randn(2, 5, 3, 3), dim=1)
    turned = rotate(features, codes)
    assert torch.allclose(turned, codes, atol=1e-5)
    # A gradient along the code comes back along the feature, of the same length.
    gradient = torch.autograd.grad(turned, features, codes)[0]
    assert torch.allclose(gradient, features.detach(), atol=1e-5)


def test_unused_codes_are_revived_and_others_left():
    quantizer = VectorQuantizer(8, 3, initialization="random", dead_code_threshold=0.5, decay=0.5)
    center = F.normalize(torch.tensor([[1.0, 0.2, -0.1]]), dim=1)
    points = F.normalize(center + 0.3 * torch.randn(200, 3), dim=1)
    features = points.T.reshape(1, 3, 20, 10)
    dead = torch.bincount(quantizer.codes(features).flatten(), minlength=8) == 0
    assert dead.sum() >= 3
    for _ in range(12):
        quantizer(features)
    assert (torch.bincount(quantizer.codes(features).flatten(), minlength=8) > 0).all()
    asleep = VectorQuantizer(8, 3, initialization="random", dead_code_threshold=0.0, decay=0.5)
    before = asleep.rows().clone()
    for _ in range(12):
        asleep(features)
    assert torch.equal(asleep.rows(), before)


def test_data_initialization_takes_features_and_kmeans_their_clusters():
    centers = F.normalize(torch.randn(4, 6), dim=1)
    points = F.normalize(centers.repeat(50, 1) + 0.05 * torch.randn(200, 6), dim=1)
    features = points.T.reshape(1, 6, 20, 10)
    quantizer = VectorQuantizer(32, 6, initialization="data", dead_code_threshold=0.0)
    quantizer(features)
    assert torch.allclose((quantizer.rows() @ points.T).amax(1), torch.ones(32), atol=1e-5)
    found = kmeans(points, points[:4])
    assert (found @ centers.T).amax(0).min() > 0.99


def test_ema_codes_settle_on_the_mean_of_their_features():
    quantizer = EmaVectorQuantizer(2, 3, initialization="data", dead_code_threshold=0.0, decay=0.5)
    centers = F.normalize(torch.tensor([[1.0, 0, 0], [0, 1.0, 0.3]]), dim=1)
    points = F.normalize(centers.repeat(100, 1) + 0.1 * torch.randn(200, 3), dim=1)
    quantizer.vectors.copy_(F.normalize(torch.tensor([[1.0, 0.5, 0], [0.5, 1.0, 0]]), dim=1))
    quantizer.sums.copy_(quantizer.vectors)
    quantizer.started.fill_(True)
    for _ in range(20):
        quantizer(points.T.reshape(1, 3, 20, 10))
    assert (quantizer.rows() @ centers.T).amax(0).min() > 0.99


def test_few_points_are_drawn_again():
    points = torch.arange(6.0).reshape(3, 2)
    assert random_rows(points, 7).shape == (7, 2)
    assert len({tuple(row.tolist()) for row in random_rows(points, 3)}) == 3


def test_the_nearest_row_is_found_in_fp32_under_autocast():
    """In bf16 rows this near to each other tie, and the first would be taken."""
    generator = torch.Generator().manual_seed(0)
    rows = F.normalize(torch.randn(4096, 8, generator=generator), dim=1)
    points = F.normalize(torch.randn(2000, 8, generator=generator), dim=1)
    latents = points.T[None, :, :, None]
    with torch.autocast("cpu", torch.bfloat16):
        codes = nearest_rows(latents, rows)
        counts, _ = assign(points, rows)
    assert torch.equal(codes, nearest_rows(latents, rows))
    assert torch.equal(counts, assign(points, rows)[0])

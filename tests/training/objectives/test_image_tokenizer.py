"""The tokenizers' objectives: scales, schedules, gradients, and that they learn."""

import math

import pytest
import torch

from dalle_mini_impl.data.batches import ImageBatch
from dalle_mini_impl.images import psnr
from dalle_mini_impl.models.tokenizers.configs import DvaeConfig, FsqConfig
from dalle_mini_impl.models.tokenizers.image_tokenizer import build_image_tokenizer
from dalle_mini_impl.models.tokenizers.pixels import LogitLaplacePixels
from dalle_mini_impl.training.objectives.dvae import divergence_from_uniform
from dalle_mini_impl.training.objectives.image_tokenizer import image_tokenizer_objective
from dalle_mini_impl.training.objectives.reconstruction import (
    code_statistics,
    collapse_warning,
    foreground_weights,
    pixel_errors,
)

DVAE = DvaeConfig(width=32, blocks=1, code_count=32, code_width=8)
FSQ = FsqConfig(width=32, blocks=1, levels=(4, 4, 2))


def objective_of(config, seed=0):
    torch.manual_seed(seed)
    return image_tokenizer_objective(build_image_tokenizer(config, 32), config)


def squares(count, seed=0):
    """Squares of one of three colors at one of sixteen places."""
    generator = torch.Generator().manual_seed(seed)
    colors = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.2], [0.1, 0.2, 0.9]])
    images = torch.ones(count, 3, 32, 32)
    for image in images:
        x, y = (torch.randint(4, (2,), generator=generator) * 8 - 4).clamp_min(0).tolist()
        kind = int(torch.randint(3, (1,), generator=generator))
        image[:, y : y + 12, x : x + 12] = colors[kind][:, None, None]
    return images


def batch_of(images):
    return ImageBatch(images, torch.zeros(len(images), 4, dtype=torch.int64))


def test_divergence_is_the_hand_computed_value():
    shares = torch.tensor([0.7, 0.2, 0.1, 1e-30])
    expected = 0.7 * math.log(0.7) + 0.2 * math.log(0.2) + 0.1 * math.log(0.1) + math.log(4)
    logits = (shares.log() + 5).reshape(1, 4, 1, 1)
    assert divergence_from_uniform(logits).item() == pytest.approx(expected, rel=1e-5)
    assert divergence_from_uniform(torch.zeros(3, 9, 2, 2)).item() == pytest.approx(0, abs=1e-6)


def test_divergence_grows_neither_with_the_batch_nor_with_the_grid():
    logits = torch.randn(1, 6, 2, 2, generator=torch.Generator().manual_seed(0))
    once = divergence_from_uniform(logits)
    assert torch.allclose(divergence_from_uniform(logits.repeat(5, 1, 1, 1)), once)
    assert torch.allclose(divergence_from_uniform(logits.repeat(1, 1, 3, 3)), once)


def test_loss_is_the_papers_bound_per_pixel_value():
    """Summed over an image and divided by its values, as appendix A.2 states the loss."""
    objective = objective_of(DVAE.model_copy(update={"scale_weighting": 0.0, "foreground": 0.0}))
    images = squares(3)
    losses = objective.losses(
        objective.model, batch_of(images), 1.0, torch.Generator().manual_seed(0)
    )
    values, positions = 3 * 32 * 32, objective.model.grid**2
    assert torch.allclose(losses["reconstruction"], -losses["likelihood"])
    image = -losses["likelihood"] * values + DVAE.kl_weight * losses["kl"] * positions
    assert losses["loss"].item() == pytest.approx((image / values).item(), rel=1e-5)
    assert losses["kl_weight"].item() == pytest.approx(6.6)


def test_divergence_does_not_depend_on_the_temperature():
    objective = objective_of(DVAE)
    batch = batch_of(squares(2))
    early = objective.losses(objective.model, batch, 0.0)
    late = objective.losses(objective.model, batch, 1.0)
    assert early["temperature"] != late["temperature"]
    assert torch.allclose(early["kl"], late["kl"])


def test_schedules_are_closed_forms_of_progress():
    objective = objective_of(DVAE)
    assert objective.temperature(0.0) == pytest.approx(1.0)
    middle = (DVAE.temperature + DVAE.final_temperature) / 2
    assert objective.temperature(DVAE.annealing / 2) == pytest.approx(middle)
    assert objective.temperature(DVAE.annealing) == pytest.approx(1 / 16)
    assert objective.temperature(1.0) == pytest.approx(1 / 16)
    assert objective.kl_weight(0.0) == pytest.approx(0.0)
    assert objective.kl_weight(DVAE.kl_warmup / 2) == pytest.approx(3.3)
    assert objective.kl_weight(DVAE.kl_warmup) == pytest.approx(6.6)
    # Asking twice changes nothing: it is not annealed from its annealed value.
    assert objective.temperature(0.3) == objective.temperature(0.3)


def test_noise_comes_from_the_generator():
    objective = objective_of(DVAE)
    batch = batch_of(squares(2))

    def loss(seed):
        generator = torch.Generator().manual_seed(seed)
        return objective.losses(objective.model, batch, 0.2, generator)["loss"].item()

    assert loss(1) == loss(1)
    assert loss(1) != loss(2)


@pytest.mark.parametrize(
    "config",
    [
        DVAE,
        DVAE.model_copy(update={"scale_weighting": 0.0, "foreground": 0.0}),
        FSQ,
        FSQ.model_copy(update={"pixel_loss": "l1"}),
        FSQ.model_copy(update={"pixel_loss": "charbonnier", "foreground": 0.0}),
        FSQ.model_copy(update={"patch": 8}),
        FSQ.model_copy(update={"patch": 2, "width": 64}),
    ],
    ids=["dvae", "dvae-paper", "l2", "l1", "charbonnier", "patch8", "patch2"],
)
def test_gradient_reaches_every_parameter(config):
    objective = objective_of(config)
    losses = objective.losses(objective.model, batch_of(squares(2)), 0.5)
    losses["loss"].backward()
    parameters = objective.model.named_parameters()
    assert [n for n, p in parameters if p.grad is None or not p.grad.any()] == []
    assert all(value.ndim == 0 for value in losses.values())


@pytest.mark.parametrize(("config", "steps"), [(DVAE, 120), (FSQ, 60)], ids=["dvae", "fsq"])
def test_training_lowers_the_hard_error(config, steps):
    objective = objective_of(config)
    model, unseen = objective.model, squares(32, seed=9)
    before = objective.evaluate(model, unseen)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        loss = objective.losses(model, batch_of(squares(8, seed=step)), step / steps, generator)
        optimizer.zero_grad()
        loss["loss"].backward()
        optimizer.step()
    after = objective.evaluate(model, unseen)
    assert after["hard_psnr"] > before["hard_psnr"] + 4
    # As a blank image scores: the squares themselves must be there.
    assert after["hard_psnr"] > psnr(torch.ones_like(unseen), unseen).mean() + 1
    assert 0 < after["code_usage"] <= 1
    assert 1 <= after["perplexity"] <= model.code_count
    if config is DVAE:
        assert abs(after["soft_psnr"] - after["hard_psnr"]) < 6


def test_report_is_of_the_argmax_reconstruction():
    objective = objective_of(DVAE)
    images = squares(4)
    hard = psnr(objective.model.decode(objective.model.encode(images)), images).mean().item()
    assert objective.evaluate(objective.model, images)["hard_psnr"] == pytest.approx(hard)


def test_foreground_weighs_more_and_the_mean_stays_one():
    images = squares(3)
    weights = foreground_weights(images, 3.0)
    assert torch.allclose(weights.mean(dim=(1, 2, 3)), torch.ones(3))
    inside = (images < 1).any(dim=1, keepdim=True)
    assert weights[inside].min() > 1.5 * weights.amin()
    assert torch.equal(foreground_weights(images, 0.0), torch.ones(3, 1, 32, 32))
    plain = foreground_weights(torch.full((1, 3, 32, 32), 0.3), 3.0)
    assert torch.allclose(plain, torch.ones_like(plain))


def test_pixel_errors():
    difference = torch.tensor([-0.5, 0.0, 0.2])
    assert pixel_errors(difference, "l1").tolist() == pytest.approx([0.5, 0, 0.2])
    assert pixel_errors(difference, "l2").tolist() == pytest.approx([0.25, 0, 0.04])
    smooth = pixel_errors(difference, "charbonnier")
    assert smooth.tolist() == pytest.approx([0.4901, 0, 0.19025], abs=1e-4)
    with pytest.raises(ValueError, match="huber"):
        pixel_errors(difference, "huber")


def test_code_statistics_of_known_codes():
    even = code_statistics(torch.arange(8).reshape(2, 4), (16,))
    assert even["code_usage"] == pytest.approx(0.5)
    assert even["perplexity"] == pytest.approx(8, rel=1e-4)
    alone = code_statistics(torch.full((2, 4), 3), (16,))
    assert alone["perplexity"] == pytest.approx(1)


def test_collapse_is_warned_of_with_advice():
    learned, scalars = objective_of(DVAE).model, objective_of(FSQ).model
    assert collapse_warning(0.95, 20.0, learned) is None
    warning = collapse_warning(0.02, 6.0, learned)
    assert warning is not None
    assert "2% of 32" in warning
    assert "fsq" in warning
    assert collapse_warning(0.2, 2.0, scalars) is None
    assert "levels" in (collapse_warning(0.02, 2.0, scalars) or "")


def test_preview_puts_reconstructions_beside_originals():
    objective = objective_of(FSQ)
    images = squares(3)
    sheet = objective.preview(objective.model, images)
    assert torch.equal(sheet[::2], images)
    assert torch.equal(sheet[1::2], objective.model.decode(objective.model.encode(images)))


def test_the_scale_of_pixels_is_learned():
    """ln b enters with its own weight: a surer map of a right mean must score better."""
    pixels = LogitLaplacePixels()
    images = torch.full((1, 3, 1, 1), 0.5)
    sure = torch.tensor([0.0] * 3 + [-2.0] * 3).reshape(1, 6, 1, 1)
    unsure = torch.tensor([0.0] * 3 + [0.0] * 3).reshape(1, 6, 1, 1)
    better = pixels.negative_log_likelihood(unsure, images) - pixels.negative_log_likelihood(
        sure, images
    )
    assert torch.allclose(better, torch.full_like(better, 2.0))

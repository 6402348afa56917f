"""The tokenizers' objectives: scales, schedules, gradients, and that they learn."""

import pytest
import torch

from dalle_mini_impl.data.batches import ImageBatch
from dalle_mini_impl.images import psnr
from dalle_mini_impl.kernels import chunks
from dalle_mini_impl.models.tokenizers.configs import ImageTokenizerConfig
from dalle_mini_impl.models.tokenizers.image_tokenizer import build_image_tokenizer
from dalle_mini_impl.models.tokenizers.pixels import LogitLaplacePixels, pixel_errors
from dalle_mini_impl.training.objectives.image_tokenizer import ImageTokenizerObjective
from dalle_mini_impl.training.objectives.reconstruction import (
    code_statistics,
    collapse_warning,
    foreground_weights,
)

NETWORKS = {"width": 32, "blocks": 1}


def config_of(**settings):
    return ImageTokenizerConfig.model_validate({"autoencoder": NETWORKS, **settings})


DVAE = config_of(quantizer={"codes": 32, "kl_weight": 6.6})
FACTORS = config_of(quantizer={"codes": [8, 4]})
PAPER = config_of(
    quantizer={
        "codes": 32,
        "logits": "free",
        "relaxation": "soft",
        "kl_weight": 6.6,
        "entropy_weight": 0.0,
        "noise": None,
    },
    likelihood="logit_laplace",
    objective={"scale_weighting": 0.0, "foreground": 0.0},
)
SOFT = config_of(quantizer={"codes": 32, "relaxation": "soft", "kl_weight": 6.6})
FREE = config_of(
    quantizer={"codes": 32, "logits": "free", "relaxation": "soft"}, likelihood="logit_laplace"
)
FSQ = config_of(preset="fsq", quantizer={"levels": "4x4x2"})


def objective_of(config, seed=0):
    torch.manual_seed(seed)
    return ImageTokenizerObjective(build_image_tokenizer(config, 32), config)


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


def test_loss_is_the_papers_bound_per_pixel_value():
    """Summed over an image and divided by its values, as appendix A.2 states the loss."""
    objective = objective_of(PAPER)
    images = squares(3)
    losses = objective.losses(
        objective.model, batch_of(images), 1.0, torch.Generator().manual_seed(0)
    )
    values, positions = 3 * 32 * 32, objective.model.grid**2
    image = losses["reconstruction"] * values + 6.6 * losses["kl"] * positions
    assert losses["loss"].item() == pytest.approx((image / values).item(), rel=1e-5)


def test_the_loss_is_the_weighted_sum_of_its_parts():
    quantizer = {"codes": 32, "entropy_weight": 0.5, "commitment": 0.1}
    objective = objective_of(config_of(quantizer=quantizer))
    losses = objective.losses(objective.model, batch_of(squares(3)), 1.0)
    added = 0.5 * losses["entropy_gap"] + 0.1 * losses["commitment"]
    expected = losses["reconstruction"] + added
    assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_schedules_are_closed_forms_of_progress():
    objective, own = objective_of(DVAE), DVAE.quantizer
    assert objective.temperature(0.0) == pytest.approx(1.0)
    middle = (own.temperature + own.final_temperature) / 2
    assert objective.temperature(own.annealing / 2) == pytest.approx(middle)
    assert objective.temperature(own.annealing) == pytest.approx(own.final_temperature)
    assert objective.temperature(1.0) == pytest.approx(own.final_temperature)
    weights = [objective.quantizer_weights(own.kl_warmup * share)["kl"] for share in (0, 0.5, 1)]
    assert weights == pytest.approx([0.0, 3.3 / 192, 6.6 / 192])
    noise = [objective.noise(own.noise * share) for share in (0, 0.5, 1, 1.5)]
    assert noise == pytest.approx([1.0, 0.5, 0.0, 0.0])
    assert objective_of(PAPER).noise(1.0) == 1.0
    # Asking twice changes nothing: it is not annealed from its annealed value.
    assert objective.temperature(0.3) == objective.temperature(0.3)


def test_noise_comes_from_the_generator():
    objective = objective_of(SOFT)
    batch = batch_of(squares(2))

    def loss(seed):
        generator = torch.Generator().manual_seed(seed)
        return objective.losses(objective.model, batch, 0.2, generator)["loss"].item()

    assert loss(1) == loss(1)
    assert loss(1) != loss(2)


CONFIGS = {
    "dvae": DVAE,
    "dvae-hard": config_of(quantizer={"codes": 32, "relaxation": "hard"}),
    "dvae-soft": config_of(quantizer={"codes": 32, "relaxation": "soft"}),
    "dvae-factors": FACTORS,
    "dvae-paper": PAPER,
    "dvae-laplace": config_of(quantizer={"codes": 32}, likelihood="logit_laplace"),
    "fsq": FSQ,
    "fsq-factors": config_of(preset="fsq", quantizer={"levels": ["4x4", "5"]}),
    "l1": config_of(preset="fsq", likelihood="l1"),
    "charbonnier": config_of(preset="fsq", likelihood="charbonnier", objective={"foreground": 0.0}),
    "vector": config_of(quantizer={"type": "vector", "codes": [8, 4], "codebook": "gradient"}),
    "dvae-adversarial": config_of(
        quantizer={"codes": 32}, objective={"adversarial": {"weight": 0.8, "width": 8}}
    ),
    "palette": config_of(
        quantizer={"codes": [8, 4, 4]},
        autoencoder={"type": "palette", **NETWORKS},
        objective={"foreground": 0.0, "patches": 64},
    ),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_gradient_reaches_every_parameter(config):
    objective = objective_of(config)
    losses = objective.losses(objective.model, batch_of(squares(2)), 0.5)
    losses["loss"].backward()
    trained = [(n, p) for n, p in objective.model.named_parameters() if p.requires_grad]
    assert [n for n, p in trained if p.grad is None or not p.grad.any()] == []
    assert all(value.ndim == 0 for value in losses.values())


@pytest.mark.parametrize(
    ("config", "steps"),
    [(DVAE, 60), (SOFT, 60), (FACTORS, 60), (FREE, 120), (FSQ, 60)],
    ids=["dvae", "soft", "factors", "free", "fsq"],
)
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
    if config in (SOFT, FREE):
        assert abs(after["soft_psnr"] - after["hard_psnr"]) < 6


def test_report_is_of_the_argmax_reconstruction():
    objective = objective_of(DVAE)
    images = squares(4)
    hard = psnr(objective.model.decode(objective.model.encode(images)), images).mean().item()
    assert objective.evaluate(objective.model, images)["hard_psnr"] == pytest.approx(hard)


def test_evaluation_takes_as_many_images_at_once_as_memory_allows(monkeypatch):
    objective, images = objective_of(SOFT), squares(6)
    model = objective.model.eval()
    together, sheet = objective.evaluate(model, images), objective.preview(model, images)
    sizes = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1)
    apart = objective.evaluate(model, images)
    assert apart["hard_psnr"] == pytest.approx(together["hard_psnr"], abs=1e-3)
    assert apart["perplexity"] == pytest.approx(together["perplexity"], rel=0.05)
    assert apart["soft_psnr"] == pytest.approx(together["soft_psnr"], abs=1.0)  # other noise
    torch.testing.assert_close(objective.preview(model, images), sheet, atol=1e-3, rtol=0)
    assert set(sizes) == {1}


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
    # With several factors few of all combinations occur.
    assert collapse_warning(1.0, 3.0, objective_of(FACTORS).model) is None
    huge = config_of(quantizer={"codes": [512, 512, 512]})
    assert collapse_warning(1.0, 100.0, objective_of(huge).model) is None
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

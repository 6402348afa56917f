"""VQGAN's losses: every option reaches every parameter, and the discriminator backs off."""

import copy

import pytest
import torch
from torch import nn

from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.data.batches import ImageBatch
from dalle_mini_impl.experiment import Experiment
from dalle_mini_impl.models.tokenizers.configs import ImageTokenizerConfig
from dalle_mini_impl.models.tokenizers.discriminator import PatchDiscriminator
from dalle_mini_impl.models.tokenizers.image_tokenizer import build_image_tokenizer
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.training.loop import train
from dalle_mini_impl.training.objectives.adversarial import adaptive_weight, gradient_penalty
from dalle_mini_impl.training.objectives.feature_distance import perceptual_distance
from dalle_mini_impl.training.objectives.image_tokenizer import ImageTokenizerObjective
from dalle_mini_impl.training.stage_files import StageFiles


def discriminator_losses(objective, batch, progress):
    return objective.discriminator_losses(objective.discriminator, objective.model, batch, progress)


def objective_of(
    features=None, quantizer=None, adversarial=None, perceptual=0.1, networks=None, **fields
):
    torch.manual_seed(0)
    quantizer = {"codes": 32, "width": 4, "initialization": "data"} | (quantizer or {})
    objective = {
        "adversarial": {"width": 8, "layers": 2} | (adversarial or {}),
        "perceptual": {"weight": perceptual},
        **fields.pop("objective", {}),
    }
    config = ImageTokenizerConfig.model_validate(
        {
            "preset": "vqgan",
            "autoencoder": {"width": 32, "blocks": 1} | (networks or {}),
            "quantizer": quantizer,
            "objective": objective,
            **fields,
        }
    )
    return ImageTokenizerObjective(build_image_tokenizer(config, 32), config, features)


def quantizer_of(objective):
    (quantizer,) = objective.model.quantizer.parts
    return quantizer


def a_batch(count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    colors = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.2], [0.1, 0.2, 0.9], [1.0, 1.0, 1.0]])
    coarse = colors[torch.randint(4, (count, 4, 4), generator=generator)].movedim(-1, 1)
    images = nn.functional.interpolate(coarse, size=32, mode="nearest")
    return ImageBatch(images, torch.zeros(count, 4, dtype=torch.int64))


def silent(module):
    return [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"quantizer": {"codebook": "gradient"}},
        {"quantizer": {"gradients": "straight-through", "codebook": "gradient"}},
        {"quantizer": {"initialization": "kmeans"}},
        {"quantizer": {"initialization": "random", "dead_code_threshold": 0.0}},
        {"likelihood": "l2", "objective": {"foreground": 0.0}},
        {"likelihood": "charbonnier"},
        {"likelihood": "logit_laplace"},
        {"adversarial": {"balance": "constant"}},
        {"networks": {"attention": 1}},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())) or "default",
)
def test_gradient_reaches_every_parameter(changes):
    objective = objective_of(**changes)
    losses = objective.losses(objective.model, a_batch(), 1.0)
    losses["loss"].backward()
    assert silent(objective.model) == []
    assert {"reconstruction", "commitment", "adversarial", "adversarial_weight"} <= set(losses)
    assert ("codebook" in losses) == ("gradient" in changes.get("quantizer", {}).values())


@pytest.mark.parametrize("regularizer", ["none", "lecam", "r1"])
def test_gradient_reaches_the_whole_discriminator_and_it_alone(regularizer):
    objective = objective_of(adversarial={"regularizer": regularizer})
    # Beyond the margin for real patches: within it, both kinds pull equally at the last bias.
    objective.discriminator.network.layers[-1].bias.data.fill_(2.0)
    losses = objective.discriminator_losses(
        objective.discriminator, objective.model, a_batch(), 1.0
    )
    losses["loss"].backward()
    assert silent(objective.discriminator) == []
    assert all(p.grad is None for p in objective.model.parameters())


def test_discriminator_waits_for_its_share_of_the_run():
    objective = objective_of(adversarial={"start": 0.6})
    early = objective.losses(objective.model, a_batch(), 0.59)
    assert "adversarial" not in early
    assert discriminator_losses(objective, a_batch(), 0.59) == {}
    assert "adversarial" in objective.losses(objective.model, a_batch(), 0.6)
    assert discriminator_losses(objective, a_batch(), 0.6)
    assert objective_of(adversarial={"weight": 0.0}).discriminator is None


def test_codes_are_observed_once_a_step():
    objective = objective_of()
    objective.losses(objective.model, a_batch(), 1.0)
    usage = quantizer_of(objective).usage.clone()
    discriminator_losses(objective, a_batch(seed=5), 1.0)
    assert torch.equal(quantizer_of(objective).usage, usage)


def test_adaptive_weight_makes_both_gradients_equal():
    last = torch.randn(5, requires_grad=True)
    faithful, adversarial = 3 * (last**2).sum(), 0.01 * (last**3).sum()
    weight = adaptive_weight(faithful, adversarial, last)
    towards = torch.autograd.grad(faithful, last)[0].norm()
    against = torch.autograd.grad(weight * adversarial, last)[0].norm()
    assert against.item() == pytest.approx(towards.item(), rel=1e-2)
    assert not weight.requires_grad


def test_discriminator_learns_to_tell_images_from_reconstructions():
    objective = objective_of()
    batch = a_batch(8)
    optimizer = torch.optim.AdamW(objective.discriminator.parameters(), lr=2e-3)

    def step():
        return discriminator_losses(objective, batch, 1.0)

    first = step()["hinge"].item()
    for _ in range(25):
        optimizer.zero_grad()
        losses = step()
        losses["loss"].backward()
        optimizer.step()
    assert losses["hinge"].item() < 0.5 * first
    assert losses["real"] > losses["fake"]


def test_generator_is_pushed_towards_what_the_discriminator_calls_real():
    objective = objective_of(adversarial={"balance": "constant"})
    before = objective.losses(objective.model, a_batch(), 1.0)["adversarial"]
    parameters = list(objective.model.decoder.parameters())
    gradients = torch.autograd.grad(before, parameters)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= 1e-3 * gradient / (gradient.norm() + 1e-8)
    after = objective.losses(objective.model.eval(), a_batch(), 1.0)["adversarial"]
    assert after < before


def test_discriminator_backs_off_when_reconstruction_worsens():
    objective = objective_of(adversarial={"back_off": 1.0})
    discriminator = objective.discriminator
    discriminator.back_off_if_worse(25.0, 1.0)
    discriminator.back_off_if_worse(20.0, 1.0)  # Not its fault: it has not begun.
    assert discriminator.strength == 1
    discriminator.back_off_if_worse(25.0, 1.0)
    objective.discriminator_losses(discriminator, objective.model, a_batch(), 1.0)
    discriminator.back_off_if_worse(24.5, 1.0)
    assert discriminator.strength == 1
    discriminator.back_off_if_worse(23.0, 1.0)
    assert discriminator.strength == 0.5
    objective.model.eval()
    halved = objective.losses(objective.model, a_batch(), 1.0)["adversarial_weight"]
    discriminator.strength.fill_(1.0)
    whole = objective.losses(objective.model, a_batch(), 1.0)["adversarial_weight"]
    assert halved.item() == pytest.approx(0.5 * whole.item(), rel=1e-4)
    report = objective.evaluate(objective.model, a_batch().images)
    assert {"hard_psnr", "code_usage", "perplexity", "adversarial_strength"} == set(report)


def test_perceptual_loss_takes_any_network():
    torch.manual_seed(0)
    network = nn.Conv2d(3, 6, 3)
    images = a_batch().images
    assert perceptual_distance(network, images, images).item() == pytest.approx(0, abs=1e-6)
    blurred = nn.functional.avg_pool2d(images, 5, 1, 2)
    far = perceptual_distance(lambda x: [network(x), x], blurred, images)
    assert far > perceptual_distance(lambda x: [network(x)], blurred, images) > 0
    objective = objective_of(features=network, perceptual=2.0, adversarial={"weight": 0.0})
    objective.to(torch.device("cpu"))
    losses = objective.losses(objective.model, a_batch(), 0.0)
    expected = losses["reconstruction"] + 2 * losses["perceptual"] + 0.25 * losses["commitment"]
    assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    losses["loss"].backward()
    assert all(p.grad is None for p in network.parameters())


def test_gradient_penalty_of_a_known_slope():
    images = torch.rand(2, 3, 4, 4, requires_grad=True)
    scores = (2 * images).sum(dim=(1, 2, 3)).reshape(2, 1, 1, 1)
    assert gradient_penalty(scores, images).item() == pytest.approx(0.5 * 4 * 48)


def test_discriminator_scores_each_image_alone():
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(8, 3)
    images = torch.rand(4, 3, 64, 64)
    scores = discriminator(images)
    assert scores.shape[:2] == (4, 1)
    assert torch.allclose(discriminator(images[1:2]), scores[1:2], atol=1e-5)


def test_asked_to_compile_it_trains_eagerly_past_the_discriminators_start(tmp_path, capsys):
    """Compiled models give up the graph at whose last layer the adaptive weight differentiates."""
    training = TrainingConfig(steps=4, batch_size=4, compile="on", previews=0, log_every=1)
    objective = objective_of(adversarial={"start": 0.5})
    run = RunFolder.create(tmp_path / "run", Experiment())
    train(objective, lambda step: a_batch(4, step), training, StageFiles(run, "image_tokenizer"))
    assert run.has_weights("image_tokenizer")
    assert "running eager" in capsys.readouterr().out
    assert run.metrics()[-1]["adversarial"] is not None


def test_training_lowers_the_hard_error_and_resumes_from_its_buffers():
    objective = objective_of(adversarial={"start": 0.7}, quantizer={"initialization": "kmeans"})
    model, unseen = objective.model, a_batch(16, seed=99).images
    before = objective.evaluate(model.eval(), unseen)["hard_psnr"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    discriminator_optimizer = torch.optim.AdamW(objective.discriminator.parameters(), lr=1e-3)
    for step in range(60):
        model.train()
        batch, progress = a_batch(8, seed=step), step / 60
        optimizer.zero_grad()
        objective.losses(model, batch, progress)["loss"].backward()
        optimizer.step()
        if losses := objective.discriminator_losses(
            objective.discriminator, model, batch, progress
        ):
            discriminator_optimizer.zero_grad()
            losses["loss"].backward()
            discriminator_optimizer.step()
    after = objective.evaluate(model.eval(), unseen)
    assert after["hard_psnr"] > before + 3
    assert after["code_usage"] >= 4 / 32  # One for each color.
    again = objective_of(adversarial={"start": 0.7})
    again.model.load_state_dict(copy.deepcopy(model.state_dict()))
    assert torch.equal(again.model.eval().encode(unseen), model.encode(unseen))
    assert quantizer_of(again).started

"""The network for the perceptual loss: trained where a run has none, and sensitive to blur."""

import pytest
import torch
from torch.nn import functional as F

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.data.batches import ImageBatch
from dalle_mini_impl.models.tokenizers.perceptual import PerceptualConfig, PerceptualNetwork
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.training.objectives.feature_distance import perceptual_distance
from dalle_mini_impl.training.objectives.perceptual import (
    PerceptualObjective,
    blur,
    jitter,
    random_positions,
)
from dalle_mini_impl.training.run_stages import run_stages
from tests.tiny import TWO_STEPS, tiny_experiment

SMALL = PerceptualConfig(width=8, stages=2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def patchwork(count: int, seed: int = 0) -> torch.Tensor:
    """Images of sharp random blocks."""
    blocks = torch.rand(count, 3, 8, 8, generator=seeded(seed))
    return F.interpolate(blocks, size=32, mode="nearest")


def batch(count: int = 8, seed: int = 0) -> ImageBatch:
    return ImageBatch(patchwork(count, seed), torch.zeros(count, 4, dtype=torch.int64))


def objective() -> PerceptualObjective:
    torch.manual_seed(0)
    return PerceptualObjective(PerceptualNetwork(SMALL))


def test_maps_halve_and_the_gradient_reaches_every_parameter():
    made = objective()
    maps = made.model(batch().images)
    assert [m.shape for m in maps] == [(8, 8, 32, 32), (8, 16, 16, 16)]
    made.losses(made.model, batch(), 0.0, seeded())["loss"].backward()
    silent = [n for n, p in made.model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_jitter_keeps_shapes_and_blur_loses_detail():
    images = patchwork(4)
    shown = jitter(images, seeded())
    assert (shown - images).abs().mean(dim=(1, 2, 3)).min() > 0.01
    assert torch.equal(shown, jitter(images, seeded()))
    flat = torch.full((2, 3, 16, 16), 0.5)
    assert jitter(flat, seeded()).flatten(1).std(dim=1).max() < 1e-5
    assert blur(images).shape == images.shape
    assert (blur(images).diff(dim=-1).abs().max()) < images.diff(dim=-1).abs().max()


def test_positions_are_the_same_for_every_image():
    maps = torch.arange(64.0).view(1, 1, 8, 8).repeat(3, 2, 1, 1)
    taken = random_positions(maps, seeded())
    assert taken.shape == (3, 32, 2)
    assert torch.equal(taken[0], taken[2])
    assert taken[0, :, 0].unique().numel() == 32


def test_training_makes_features_react_to_blur_more_than_to_brightness():
    made = objective()
    images = patchwork(16, seed=9)

    @torch.no_grad()
    def distance(other) -> float:
        """Against that to another image."""
        own = perceptual_distance(made.model, other, images)
        return float(own / perceptual_distance(made.model, images.roll(1, 0), images))

    blurred, jittered = distance(blur(images)), distance(jitter(images, seeded()))
    optimizer = torch.optim.Adam(made.model.parameters(), lr=5e-3)
    for step in range(20):
        optimizer.zero_grad()
        losses = made.losses(made.model, batch(8, seed=100 + step), 0.0, seeded(step))
        losses["loss"].backward()
        optimizer.step()
    assert losses["accuracy"] > 0.95
    assert distance(blur(images)) > 2 * blurred
    assert distance(jitter(images, seeded())) < 2 * jittered


def vqgan_run(path, **changes) -> RunFolder:
    tokenizer = {
        "preset": "vqgan", "autoencoder": {"width": 32, "blocks": 1},
        "quantizer": {"codes": 8, "width": 4, "initialization": "data"},
        "objective": {
            "adversarial": {"width": 8, "layers": 2},
            "perceptual": {
                "network": {"width": 8, "stages": 2, "training": TWO_STEPS}, **changes,
            },
        },
        "training": TWO_STEPS,
    }  # fmt: skip
    run = RunFolder.create(path, tiny_experiment(TWO_STEPS, image_tokenizer=tokenizer))
    run_stages(run, "captions")
    return run


def perceptual_losses(run: RunFolder) -> list[float]:
    return [
        record["perceptual"]
        for record in run.metrics()
        if record["stage"] == "image_tokenizer" and "perceptual" in record
    ]


def test_a_first_run_trains_its_network_and_a_second_uses_it_again(tmp_path, capsys):
    run = vqgan_run(tmp_path / "run")
    run_stages(run, "image_tokenizer")
    assert "over features of perceptual.safetensors" in capsys.readouterr().out
    assert all(loss > 0 for loss in perceptual_losses(run))
    assert len(perceptual_losses(run)) == 2
    weights = run.weights_hash("perceptual")
    run_stages(run, "image_tokenizer")
    assert run.weights_hash("perceptual") == weights
    assert "first a small network" not in capsys.readouterr().out
    run.discard("image_tokenizer")
    assert not run.has_weights("perceptual")


def test_other_features_replace_it(tmp_path):
    with pytest.raises(ConfigError, match="has no CLIP yet"):
        run_stages(vqgan_run(tmp_path / "clip", features="clip"), "image_tokenizer")
    with pytest.raises(ConfigError, match=r"perceptual.features nowhere:f"):
        run_stages(vqgan_run(tmp_path / "no", features="nowhere:f"), "image_tokenizer")
    own = vqgan_run(tmp_path / "own", features="tests.models.tokenizers.test_perceptual:blur")
    run_stages(own, "image_tokenizer")
    assert len(perceptual_losses(own)) == 2
    none = vqgan_run(tmp_path / "none", weight=0.0)
    run_stages(none, "image_tokenizer")
    assert perceptual_losses(none) == []
    assert not any(run.has_weights("perceptual") for run in (own, none))

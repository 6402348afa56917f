"""The comparison with DALLE-pytorch, as far as it goes without the package."""

import torch
from torch import nn

from benchmarks.dalle_pytorch_peer import sized, train, unnormalized, vae_temperature, weights


def test_width_brings_the_weights_nearest_to_the_target():
    widths = range(2, 40, 2)

    def build(width):
        return nn.Linear(width, width)

    for target in (1, 50, 400, 10**6):
        found = weights(sized(build, target, widths))
        assert abs(found - target) == min(abs(w * w + w - target) for w in widths)


def test_decoded_values_become_pixels():
    values = torch.tensor([-3.0, -1.0, 0.0, 1.0, 2.0])
    assert unnormalized(values).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_temperature_is_annealed_every_hundred_steps_down_to_a_half():
    temperature = 1.0
    for step in range(1, 100_000, 1):
        before, temperature = temperature, vae_temperature(temperature, step)
        assert step % 100 == 0 or temperature == before
    assert temperature == 0.5


def test_training_lowers_the_loss_and_counts_its_steps():
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    inputs = torch.randn(16, 3)
    target = inputs.sum(dim=1, keepdim=True)

    def loss_of(batch, step):
        return (model(batch) - target).float().square().mean()

    before = loss_of(inputs, 0).item()
    result = train(model, lambda step: inputs, loss_of, minutes=0.01, rate=0.05)
    assert result.loss < 0.5 * before
    assert result.parameters == 4
    assert result.steps > 10

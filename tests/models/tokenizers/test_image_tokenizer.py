"""Image tokenizers: shapes, round trips, the pixel distribution, clear refusals."""

import math

import pytest
import torch
from pydantic import ValidationError

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.models.tokenizers.configs import DvaeConfig, FsqConfig
from dalle_mini_impl.models.tokenizers.image_tokenizer import build_image_tokenizer
from dalle_mini_impl.models.tokenizers.palette import PaletteConfig
from dalle_mini_impl.models.tokenizers.pixels import LogitLaplacePixels
from dalle_mini_impl.models.tokenizers.quantizers import gumbel_noise

SMALL = [
    DvaeConfig(width=32, blocks=1, code_count=20, code_width=8),
    FsqConfig(width=32, blocks=1, levels=(4, 3)),
    FsqConfig(width=32, blocks=0, levels=(8, 5), patch=8),
    FsqConfig(width=64, blocks=1, levels=(5, 5), patch=2),
    FsqConfig(width=32, blocks=1, levels=(5, 5), downsampling=4, patch=1),
    PaletteConfig(width=16, blocks=1, pattern_levels=(3, 2), color_levels=(2, 2)),
    PaletteConfig(width=16, blocks=0, pattern_levels=(5,), colors=3, downsampling=4),
]


@pytest.fixture(params=SMALL, ids=lambda c: f"{c.type}-{c.downsampling}-{getattr(c, 'patch', '')}")
def tokenizer(request):
    torch.manual_seed(0)
    return build_image_tokenizer(request.param, 32).eval()


def relaxation(tokenizer, images):
    if tokenizer.quantizer.features != tokenizer.code_count:
        return ()
    logits = torch.empty(len(images), tokenizer.code_count, tokenizer.grid, tokenizer.grid)
    return gumbel_noise(logits), torch.tensor(1.0)


def test_codes_and_images_have_the_promised_shapes(tokenizer):
    assert tokenizer.grid == 32 // tokenizer.downsampling
    codes = tokenizer.encode(torch.rand(3, 3, 32, 32))
    assert codes.shape == (3, tokenizer.grid**2)
    assert codes.dtype == torch.int64
    assert codes.min() >= 0
    assert codes.max() < tokenizer.code_count
    images = tokenizer.decode(codes)
    assert images.shape == (3, 3, 32, 32)
    assert images.min() >= 0
    assert images.max() <= 1


def test_embedded_codes_quantize_to_themselves_in_the_same_order(tokenizer):
    codes = torch.arange(2 * tokenizer.grid**2).reshape(2, -1) % tokenizer.code_count
    latents = tokenizer.embed(codes)
    nearest, again = tokenizer.quantize(latents)
    assert torch.equal(again, codes)
    assert torch.allclose(nearest, latents)


def test_row_major_codes_move_the_right_part_of_the_image(tokenizer):
    torch.manual_seed(1)
    grid, cell = tokenizer.grid, tokenizer.downsampling
    codes = torch.zeros(1, grid**2, dtype=torch.int64)
    changed = codes.clone()
    changed[0, grid - 1] = 1  # end of the first row: the upper right corner
    difference = (tokenizer.decode(changed) - tokenizer.decode(codes)).abs().sum(1)[0]
    corner = difference[:cell, -cell:].mean()
    assert corner > 2 * difference[-cell:, :cell].mean()


def test_pixels_are_differentiable_in_the_latents(tokenizer):
    latents = tokenizer.embed(tokenizer.encode(torch.rand(2, 3, 32, 32)))
    latents = latents.detach().requires_grad_()
    images = tokenizer.decode_latents(tokenizer.quantize(latents)[0])
    images.sum().backward()
    assert latents.grad.abs().sum() > 0


def test_gradient_reaches_every_parameter(tokenizer):
    images = torch.rand(2, 3, 32, 32)
    output = tokenizer(images, *relaxation(tokenizer, images))
    output.maps.square().mean().backward()
    silent = [n for n, p in tokenizer.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_a_image_does_not_depend_on_its_batch(tokenizer):
    images = torch.rand(4, 3, 32, 32)
    together = tokenizer.encode(images)
    assert torch.equal(together[2:3], tokenizer.encode(images[2:3]))


def test_wrong_sizes_are_refused(tokenizer):
    with pytest.raises(ValueError, match="16×16"):
        tokenizer.encode(torch.rand(1, 3, 16, 16))
    with pytest.raises(ValueError, match="codes per image"):
        tokenizer.decode(torch.zeros(1, 5, dtype=torch.int64))


def test_impossible_configurations_name_value_and_mend():
    with pytest.raises(ConfigError, match=r"60 is not divisible.*56"):
        build_image_tokenizer(FsqConfig(), 60)
    with pytest.raises(ValidationError, match="power of two"):
        FsqConfig(downsampling=6)
    with pytest.raises(ValidationError, match="set patch to 2"):
        DvaeConfig(downsampling=2, patch=4)
    with pytest.raises(ValidationError, match="at least 2 levels"):
        FsqConfig(levels=(8, 1))


def test_likelihood_integrates_to_one():
    pixels = LogitLaplacePixels()
    epsilon = pixels.epsilon
    # φ maps [0, 1] into [ε, 1-ε]; the density lives on all of (0, 1), reached by x beyond [0, 1].
    mapped = torch.linspace(1e-6, 1 - 1e-6, 200001, dtype=torch.float64)
    x = (mapped - epsilon) / (1 - 2 * epsilon)
    for mean, scale in [(0.0, 1.0), (1.3, 0.4), (-2.0, 0.2)]:
        maps = torch.tensor([mean] * 3 + [math.log(scale)] * 3, dtype=torch.float64)
        maps = maps.reshape(1, 6, 1, 1).expand(1, 6, 1, x.numel())
        images = x.reshape(1, 1, 1, -1).expand(1, 3, 1, -1)
        density = (-pixels.negative_log_likelihood(maps, images)).exp()[0, 0, 0]
        assert torch.trapezoid(density, mapped).item() == pytest.approx(1, abs=2e-3)


def test_the_likeliest_constant_image_is_the_image_itself():
    """The pixel map is applied once and undone once: mapping twice would bend the colors."""
    pixels = LogitLaplacePixels()
    means = torch.linspace(-3, 3, 6001)
    maps = torch.stack([means] * 3 + [torch.full_like(means, -1)] * 3).reshape(1, 6, 1, -1)
    for value in (0.0, 0.1, 0.35, 0.5, 0.8, 1.0):
        images = torch.full((1, 3, 1, len(means)), value)
        likeliest = pixels.negative_log_likelihood(maps, images)[0, 0, 0].argmin()
        assert pixels.images(maps)[0, 0, 0, likeliest].item() == pytest.approx(value, abs=1e-3)

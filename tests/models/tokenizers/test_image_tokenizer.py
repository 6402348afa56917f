"""Image tokenizers: shapes, round trips, the pixel distribution, clear refusals."""

import math

import pytest
import torch
from pydantic import ValidationError

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.models.code_head import split_code
from dalle_mini_impl.models.tokenizers.categorical import CategoricalQuantizer, gumbel_noise
from dalle_mini_impl.models.tokenizers.configs import ImageTokenizerConfig
from dalle_mini_impl.models.tokenizers.image_tokenizer import build_image_tokenizer
from dalle_mini_impl.models.tokenizers.pixels import LogitLaplacePixels
from dalle_mini_impl.models.tokenizers.quantizer import Relaxation
from dalle_mini_impl.models.tokenizers.vector_quantizer import VectorConfig

QUANTIZERS = {
    "distance": {"type": "categorical", "codes": 20, "width": 8},
    "hard": {"type": "categorical", "codes": [20, 4], "relaxation": "hard"},
    "free": {"type": "categorical", "codes": [6, 5], "logits": "free", "relaxation": "soft"},
    "scalar": {"type": "finite_scalar", "levels": ["4x3"]},
    "scalars": {"type": "finite_scalar", "levels": ["4x3", "5", "2x2x2"]},
    "vector": {"type": "vector", "codes": 16, "width": 4, "initialization": "random"},
    "vectors": {"type": "vector", "codes": [8, 4], "codebook": "gradient"},
}
PALETTES = {
    "distance": {"type": "categorical", "codes": [9, 4, 4]},
    "free": {"type": "categorical", "codes": [9, 4, 4], "logits": "free", "relaxation": "hard"},
    "scalars": {"type": "finite_scalar", "levels": ["3x2", "2x2", "2x2"]},
    "vectors": {"type": "vector", "codes": [9, 4, 4], "codebook": "gradient"},
}
NETWORKS = {"width": 32, "blocks": 1}
SMALL = {
    **{name: {"quantizer": q, "autoencoder": NETWORKS} for name, q in QUANTIZERS.items()},
    **{
        f"patches-{name}": {"quantizer": q, "autoencoder": {"type": "patches", **NETWORKS}}
        for name, q in QUANTIZERS.items()
    },
    **{
        f"palette-{name}": {"quantizer": q, "autoencoder": {"type": "palette", **NETWORKS}}
        for name, q in PALETTES.items()
    },
    "margin": {
        "quantizer": QUANTIZERS["distance"],
        "autoencoder": {"type": "patches", "margin": 4, **NETWORKS},
    },
    "form-and-color": {
        "quantizer": {"type": "categorical", "codes": [16, 8, 8]},
        "autoencoder": {"type": "form_and_color", "margin": 4, **NETWORKS},
    },
    "laplace": {
        "quantizer": QUANTIZERS["scalars"], "autoencoder": NETWORKS, "likelihood": "logit_laplace",
    },
    "no-blocks": {
        "quantizer": QUANTIZERS["scalar"], "autoencoder": {"width": 32, "blocks": 0, "patch": 8},
    },
    "fine-patch": {"quantizer": QUANTIZERS["scalar"], "autoencoder": {"width": 64, "patch": 2}},
    "fine-grid": {
        "quantizer": QUANTIZERS["distance"], "downsampling": 4,
        "autoencoder": {"width": 32, "patch": 1},
    },
    "attention": {
        "quantizer": QUANTIZERS["distance"], "autoencoder": {"width": 32, "attention": 1},
    },
}  # fmt: skip


@pytest.fixture(params=SMALL.values(), ids=SMALL)
def tokenizer(request):
    torch.manual_seed(0)
    config = ImageTokenizerConfig.model_validate(request.param)
    return build_image_tokenizer(config, 32).eval()


def relaxation(tokenizer, images):
    part = tokenizer.quantizer.parts[0]
    if not isinstance(part, CategoricalQuantizer) or part.config.relaxation == "straight-through":
        return ()
    shape = (len(images), tokenizer.grid, tokenizer.grid, sum(tokenizer.factors))
    return Relaxation(gumbel_noise(torch.empty(shape)), torch.tensor(1.0))


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
    (output.maps.square().mean() + sum(output.losses.values())).backward()
    trained = [(n, p) for n, p in tokenizer.named_parameters() if p.requires_grad]
    silent = [n for n, p in trained if p.grad is None or not p.grad.any()]
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


@pytest.mark.parametrize(("margin", "reach"), [(0, 0), (4, 4), (8, 8)])
def test_codes_of_patches_see_the_margin_and_no_more(margin, reach):
    torch.manual_seed(0)
    networks = {"type": "patches", "margin": margin, **NETWORKS}
    config = ImageTokenizerConfig.model_validate({"autoencoder": networks})
    encoder = build_image_tokenizer(config, 64).encoder
    images = torch.rand(1, 3, 64, 64).requires_grad_()
    # The patch of the fourth row and column: pixels 24 to 31.
    slope = torch.autograd.grad(encoder(images)[0, :, 3, 3].square().sum(), images)[0]
    seen = slope.abs().sum(dim=(0, 1)).nonzero()
    assert (seen.min().item(), seen.max().item()) == (24 - reach, 31 + reach)


def test_form_codes_do_not_depend_on_colors():
    torch.manual_seed(0)
    networks = {"type": "form_and_color", "margin": 4, **NETWORKS}
    config = ImageTokenizerConfig.model_validate(
        {"autoencoder": networks, "quantizer": {"codes": [64, 32]}}
    )
    tokenizer = build_image_tokenizer(config, 64).eval()

    def square(color, background):
        image = torch.tensor(background).reshape(1, 3, 1, 1).repeat(1, 1, 64, 64)
        image[:, :, 20:37, 25:42] = torch.tensor(color).reshape(1, 3, 1, 1)
        return split_code(tokenizer.encode(image), tokenizer.factors)

    red, blue = square((1.0, 0.1, 0.1), (0.9, 0.9, 0.9)), square((0.1, 0.1, 1.0), (0.1, 0.1, 0.1))
    assert torch.equal(red[0], blue[0])
    assert not torch.equal(red[1], blue[1])


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"downsampling": 6}, "power of two"),
        ({"downsampling": 2}, "set autoencoder.patch to 2"),
        ({"autoencoder": {"type": "patches", "margin": 3}}, "autoencoder.patch 4; use 4"),
        ({"autoencoder": {"type": "form_and_color"}}, "a single factor"),
        ({"preset": "fsq", "quantizer": {"levels": ["8x1"]}}, "at least 2"),
        ({"preset": "fsq", "quantizer": {"levels": [8, 8, 8]}}, "valid string"),
        ({"quantizer": {"codes": [512, 1]}}, "greater than 1"),
        ({"quantizer": {"logits": "free"}}, "needs distances; use soft or hard"),
        ({"quantizer": {"noise": 0.3}}, "noise is 0.3, but relaxation straight-through has none"),
        ({"quantizer": {"width": 1}}, "greater than 1"),
        ({"quantizer": {"codes": []}}, "at least 1 item"),
        ({"objective": {"patches": 8}}, "a patch depends on its neighbors"),
        ({"objective": {"patches": 8}}, "objective.foreground is 3.0, which needs whole images"),
        ({"preset": "vqae"}, "'dvae', 'fsq' or 'vqgan'"),
    ],
)
def test_impossible_configurations_name_value_and_mend(settings, complaint):
    with pytest.raises(ValidationError, match=complaint):
        ImageTokenizerConfig.model_validate(settings)


def test_images_that_the_grid_does_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"60 is not divisible.*56"):
        build_image_tokenizer(ImageTokenizerConfig(), 60)


def test_presets_are_defaults_that_every_setting_may_replace():
    vqgan = ImageTokenizerConfig.model_validate({"preset": "vqgan"})
    assert isinstance(vqgan.quantizer, VectorConfig)
    assert vqgan.objective.adversarial.weight > 0 < vqgan.objective.perceptual.weight
    mixed = ImageTokenizerConfig.model_validate(
        {"preset": "vqgan", "quantizer": {"codes": 9}, "objective": {"adversarial": {"start": 0.1}}}
    )
    assert mixed.quantizer == VectorConfig(codes=(9,))
    assert mixed.objective.adversarial.weight == vqgan.objective.adversarial.weight
    assert mixed.objective.adversarial.start == 0.1
    other = ImageTokenizerConfig.model_validate(
        {"preset": "vqgan", "quantizer": {"type": "categorical", "codes": [4, 8]}}
    )
    assert other.factors == (4, 8)
    assert other.code_count == 32
    plain = ImageTokenizerConfig()
    assert plain == ImageTokenizerConfig.model_validate({"preset": "dvae"})
    assert plain.objective.adversarial.weight == 0 == plain.objective.perceptual.weight
    assert ImageTokenizerConfig.model_validate(vqgan.model_dump()) == vqgan


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

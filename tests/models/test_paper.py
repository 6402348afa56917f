"""What DALL·E's paper says, held to it: arXiv 2102.12092 (§ and appendices below), CLIP 2103.00020.

Other tests say that the parts work; these say that they are the paper's.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.data.batches import CodeBatch, ImageBatch
from dalle_mini_impl.models.attention import pattern_mask
from dalle_mini_impl.models.clip import Clip, ClipConfig
from dalle_mini_impl.models.dalle import Dalle, TransformerConfig
from dalle_mini_impl.models.tokenizers.categorical import gumbel_noise
from dalle_mini_impl.models.tokenizers.configs import ImageTokenizerConfig
from dalle_mini_impl.models.tokenizers.image_tokenizer import build_image_tokenizer
from dalle_mini_impl.models.tokenizers.pixels import LogitLaplacePixels
from dalle_mini_impl.models.tokenizers.quantizer import Relaxation
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.training import clip_stage, transformer_stage
from dalle_mini_impl.training.context import StageContext
from dalle_mini_impl.training.objectives.dalle import DalleObjective
from dalle_mini_impl.training.objectives.image_tokenizer import ImageTokenizerObjective
from dalle_mini_impl.training.optimizers import build_optimizer
from dalle_mini_impl.training.schedules import learning_rate
from tests.tiny import tiny_run

GRID, CONTEXT, CODES, WORDS = 16, 6, 32, 50


def dvae(downsampling: int = 8, **fields) -> ImageTokenizerObjective:
    """The paper's dVAE; the project's own differs in logits, likelihood, entropy and weights."""
    torch.manual_seed(0)
    config = ImageTokenizerConfig.model_validate(
        {
            "downsampling": downsampling,
            "autoencoder": {"width": 32, "blocks": 1},
            "quantizer": {
                "codes": 32, "logits": "free", "relaxation": "soft", "kl_weight": 6.6,
                "entropy_weight": 0.0, "noise": None, **fields,
            },
            "likelihood": "logit_laplace",
            "objective": {"scale_weighting": 0.0, "foreground": 0.0},
        }
    )  # fmt: skip
    return ImageTokenizerObjective(build_image_tokenizer(config, 32), config)


def made_images(rows: int) -> ImageBatch:
    images = torch.rand(rows, 3, 32, 32, generator=torch.Generator().manual_seed(rows))
    return ImageBatch(images, torch.zeros(rows, 4, dtype=torch.long))


def transformer(grid: int = 4, **fields) -> Dalle:
    torch.manual_seed(0)
    config = TransformerConfig(**{"depth": 2, "width": 32, "heads": 2, "ffn_width": 48, **fields})
    model = Dalle(config, WORDS, CONTEXT, CODES, grid).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def stream(rows: int = 4, grid: int = 4) -> CodeBatch:
    generator = torch.Generator().manual_seed(1)
    captions = torch.randint(1, WORDS, (rows, CONTEXT), generator=generator)
    captions[:, 4:] = 0
    return CodeBatch(torch.randint(CODES, (rows, grid * grid), generator=generator), captions)


# The discrete VAE: §2.1, appendix A.


def test_the_logit_laplace_density_is_one_of_mapped_pixels():
    """A.3: 1 / (2b·x(1-x)) · exp(-|logit x - μ| / b), on φ(x) = (1 - 2ε)x + ε with ε = 0.1."""
    mapped = torch.linspace(1e-4, 1 - 1e-4, 20001, dtype=torch.float64)
    images = ((mapped - 0.1) / 0.8).reshape(1, 1, 1, -1).expand(1, 3, 1, -1)
    for mean, scale in ((0.0, 0.3), (1.2, 0.15), (-0.7, 0.5)):
        maps = torch.tensor([mean] * 3 + [math.log(scale)] * 3, dtype=torch.float64)
        maps = maps.reshape(1, 6, 1, 1).expand(1, 6, 1, len(mapped))
        density = (-LogitLaplacePixels().negative_log_likelihood(maps, images)).exp()[0, 0, 0]
        expected = torch.exp(-(torch.logit(mapped) - mean).abs() / scale)
        expected = expected / (2 * scale * mapped * (1 - mapped))
        torch.testing.assert_close(density, expected)
        assert torch.trapezoid(density, mapped).item() == pytest.approx(1, abs=1e-3)


def test_pixels_are_mapped_and_unmapped_exactly_once():
    """A.3: the reconstruction is φ⁻¹(σ(μ)); the μ that is likeliest for an image gives it back."""
    images = torch.linspace(0, 1, 11).reshape(1, 1, 1, -1).expand(1, 3, 1, -1)
    mean = torch.logit(0.8 * images + 0.1).requires_grad_()
    maps = torch.cat((mean, torch.zeros_like(mean)), dim=1)
    torch.testing.assert_close(LogitLaplacePixels().images(maps), images, atol=1e-6, rtol=0)
    for shift in (-0.01, 0.01):
        moved = torch.cat((mean + shift, torch.zeros_like(mean)), dim=1)
        likelihoods = [
            LogitLaplacePixels().negative_log_likelihood(m, images) for m in (maps, moved)
        ]
        assert (likelihoods[0] < likelihoods[1]).all()


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("downsampling", [4, 8])
def test_the_divergence_weighs_beta_over_three_f_squared(rows, downsampling):
    """A.2: β = 6.6 on a loss divided by all values of the image; f² · 3 of them to a position."""
    objective = dvae(downsampling=downsampling)
    losses = objective.losses(
        objective.model, made_images(rows), 1.0, torch.Generator().manual_seed(0)
    )
    added = losses["loss"] - losses["reconstruction"]
    assert added.item() == pytest.approx(
        6.6 / (3 * downsampling**2) * losses["kl"].item(), rel=1e-3
    )
    logits = objective.model.encoder(made_images(rows).images)
    shares = logits.softmax(dim=1)
    divergence = (shares * (shares * 32).log()).sum(1).mean()
    assert losses["kl"].item() == pytest.approx(divergence.item(), rel=1e-4)


def test_the_divergence_knows_neither_temperature_nor_noise():
    objective = dvae()
    assert objective.temperature(0.2) > objective.temperature(0.9)
    first, later, other = (
        objective.losses(objective.model, made_images(2), at, torch.Generator().manual_seed(seed))
        for at, seed in ((0.2, 0), (0.9, 0), (0.2, 1))
    )
    assert first["kl"] == later["kl"] == other["kl"]
    assert first["reconstruction"] != other["reconstruction"]


def wave(share: float, start: float, end: float) -> float:
    """Half a cosine wave, as the paper anneals everything."""
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2


def test_temperature_beta_and_learning_rate_are_cosines_of_the_progress():
    """A.2: τ from 1 to 1/16, β from 0 to 6.6, the learning rate from 1e-4 to 1.25e-6."""
    objective = dvae(annealing=0.5, kl_warmup=0.25)
    rate = TrainingConfig(
        learning_rate=1e-4, schedule="cosine", warmup=0.0, final_learning_rate=0.0125
    )
    for progress in (0.8, 0.1, 0.25, 0.0, 0.33, 0.5, 1.0):  # in no order: nothing is remembered
        assert objective.temperature(progress) == pytest.approx(wave(progress / 0.5, 1, 1 / 16))
        beta = objective.quantizer_weights(progress)["kl"] * 3 * 8**2
        assert beta == pytest.approx(wave(progress / 0.25, 0, 6.6))
        factor = 1e-4 * learning_rate(rate, progress)
        assert factor == pytest.approx(wave(progress, 1e-4, 1.25e-6))


def test_codes_are_soft_in_training_and_hard_afterwards():
    """§2.1: the relaxed bound trains, softmax((logits + Gumbel) / τ); the argmax codes are used."""
    model, images = dvae().model, made_images(2).images
    logits = model.encoder(images).movedim(1, -1)
    noise = gumbel_noise(logits, torch.Generator().manual_seed(0))
    latents = model(images, *Relaxation(noise, torch.tensor(0.7))).latents
    shares = ((logits + noise) / 0.7).softmax(dim=-1)
    (codebook,) = [part.codebook for part in model.quantizer.parts]
    mixed = torch.einsum("bhwk,kd->bdhw", shares, codebook.weight)
    torch.testing.assert_close(latents, mixed)
    assert torch.equal(model.encode(images), logits.argmax(dim=-1).flatten(1))
    hard = codebook(model.encode(images)).mT.reshape(latents.shape)
    torch.testing.assert_close(model.embed(model.encode(images)), hard)


# The transformer: §2.2, appendix B.


@torch.no_grad()
def test_every_text_position_has_a_padding_token_of_its_own():
    """§2.2: "we opt to learn a special padding token separately for each text position"."""
    model = transformer()
    model.embedding.text_position.weight.zero_()
    pads = model.embedding.text(torch.zeros(1, CONTEXT, dtype=torch.long))[0, 1:]
    torch.testing.assert_close(pads, model.embedding.padding.weight)
    assert len(pads.unique(dim=0)) == CONTEXT


@torch.no_grad()
def test_image_tokens_add_a_row_and_a_column_embedding():
    """B.1."""
    model = transformer(upper_neighbor=False)
    codes = stream(2).codes
    places = torch.arange(15)
    expected = model.embedding.code(codes)[:, :15]
    expected = expected + model.embedding.row(places // 4) + model.embedding.column(places % 4)
    torch.testing.assert_close(model.embedding.codes(codes), expected)


@torch.no_grad()
def test_layers_attend_by_column_row_and_at_last_by_convolution():
    """B.1: layer i by column if (i - 2) mod 4 = 0, else by row; the last over 11 × 11 positions."""
    model = transformer(GRID, depth=8, attention="dalle")
    given = []
    for block in model.blocks:
        block.register_forward_pre_hook(
            lambda _, inputs, named: given.append(named["mode"].mask), with_kwargs=True
        )
    batch = stream(1, GRID)
    model(batch.captions, batch.codes)
    text, length = model.text_length, model.length
    names = ["row", "column", "row", "row", "row", "column", "row", "convolution"]
    assert len(given) == 8
    for name, mask in zip(names, given, strict=True):
        assert torch.equal(mask, pattern_mask(name, text, length, GRID))
    seen = given[-1][text + 8 * GRID + 8, text:].nonzero().flatten().tolist()
    rows, columns = {i // GRID for i in seen}, {i % GRID for i in seen if i // GRID < 8}
    assert (rows, columns) == (set(range(3, 9)), set(range(3, 14)))
    above = given[1][text + 8 * GRID + 8, text:].nonzero().flatten().tolist()
    assert above == [row * GRID + 8 for row in range(9)]
    before = given[0][text + 8 * GRID + 8, text:].nonzero().flatten().tolist()
    assert before == list(range(7 * GRID + 8, 8 * GRID + 9))
    assert all(mask[text:, :text].all() for mask in given)


def test_the_loss_is_an_eighth_text_and_seven_eighths_image():
    """§2.2: each kind's cross-entropy is normalized by its number of tokens, then weighed."""
    model, batch = transformer(caption_dropout=0.0), stream()
    objective = DalleObjective(model, model.config)
    losses = objective.losses(model, objective.prepare(batch), 0.0)
    logits = model(batch.captions, batch.codes)
    # Four words and the pad that ends them; the pads after it are no text.
    text = F.cross_entropy(logits.text[:, :5].flatten(0, 1), batch.captions[:, :5].flatten())
    image = F.cross_entropy(logits.image.flatten(0, 1), batch.codes.flatten())
    torch.testing.assert_close(losses["loss"], text / 8 + 7 * image / 8)


def test_dropped_captions_are_the_null_caption_and_teach_no_text():
    model, batch = transformer(caption_dropout=1 - 1e-9), stream()
    objective = DalleObjective(model, model.config)
    losses = objective.losses(model, objective.prepare(batch), 0.0)
    null = model(torch.zeros_like(batch.captions), batch.codes).image
    torch.testing.assert_close(losses["image"], F.cross_entropy(null.mT, batch.codes))
    assert losses["text"] == 0
    losses["loss"].backward()
    assert not model.text_head.weight.grad.any()
    assert not model.embedding.token.own.weight.grad.any()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    captions = {"vocabulary": "shapes", "context": 24, "dropout": 0.5}
    return tiny_run(tmp_path_factory.mktemp("runs") / "tiny", captions=captions)


def test_the_null_caption_of_sampling_is_the_one_of_training(run):
    """Guidance 0 follows the null branch alone: the images are those of the empty caption."""
    model = TextToImage.from_pretrained(run, "cpu")
    settings = {"num_images": 16, "candidates": 16, "rank_by": "none"}
    null = [result.codes for result in model("a red heart", guidance=0.0, **settings)]
    assert null == [result.codes for result in model("", guidance=1.0, **settings)]
    caption = "a large red heart above a small blue star on a white background"
    assert null != [result.codes for result in model(caption, guidance=1.0, **settings)]


@pytest.mark.parametrize(
    ("module", "stage"),
    [(transformer_stage, transformer_stage.train_transformer), (clip_stage, clip_stage.train_clip)],
)
def test_bpe_dropout_is_on_in_training(run, monkeypatch, module, stage):
    """§2.2: 10 % BPE-dropout (arXiv 1910.13267) when captions are encoded."""
    given = {}
    monkeypatch.setattr(
        module, "train", lambda objective, batches, *_, **__: given.update(b=batches)
    )
    monkeypatch.setattr(clip_stage, "_warn_if_clip_learned_nothing", lambda *_: None)
    stage(StageContext(run))
    draws = [given["b"](step).captions for step in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    texts = [run.captions().decode(row) for row in draws[0]]
    whole = run.captions().encode(texts)
    assert (draws[0].numpy() != whole).any()


def test_bpe_dropout_is_off_outside_training(run):
    model = TextToImage.from_pretrained(run, "cpu")
    captions = ["a large yellow heart above a small blue ring"] * 8
    ids = model.captions.encode(captions)
    assert (ids == ids[0]).all()
    table = StageContext(run).table(dropout=False)
    indices = torch.arange(8).numpy()
    numbers = torch.zeros(8, dtype=torch.long).numpy()
    rng = np.random.default_rng(0)
    assert torch.equal(table.ids(indices, numbers, rng), table.ids(indices, numbers, rng))


# CLIP: arXiv 2103.00020, §2.4 and §2.5.


def small_clip() -> Clip:
    torch.manual_seed(0)
    config = ClipConfig(
        embedding=16, image_width=16, image_stages=2, image_blocks=1, text_width=32, text_depth=1
    )
    return Clip(config, WORDS, CONTEXT, 16)


def test_the_temperature_of_clip_starts_at_007_and_its_inverse_stops_at_100():
    model = small_clip()
    assert model.log_scale.item() == pytest.approx(math.log(1 / 0.07))
    model.log_scale.data.fill_(math.log(100) + 1)
    assert model.logit_scale.item() == pytest.approx(100)
    model.log_scale.data.fill_(math.log(99))
    assert model.logit_scale.item() == pytest.approx(99)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_no_weight_decay_on_gains_biases_and_the_temperature_of_clip(optimizer):
    model = small_clip()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    config = TrainingConfig(optimizer=optimizer, weight_decay=0.2)
    decayed, spared = set(), set()
    for group in (g for o in build_optimizer(model, config) for g in o.param_groups):
        (decayed if group["weight_decay"] else spared).update(names[id(p)] for p in group["params"])
    small = {n for n, p in model.named_parameters() if p.ndim < 2 and p.requires_grad}
    assert small <= spared
    assert "log_scale" in spared
    assert any("blocks" in name for name in decayed)
    assert decayed | spared == {n for n, p in model.named_parameters() if p.requires_grad}

"""CLIP's towers and objectives: unit vectors, padding, equal captions, near misses, learning."""

import math

import pytest
import torch

from dalle_mini_impl.data.batches import ImageBatch
from dalle_mini_impl.models.clip import Clip, ClipConfig
from dalle_mini_impl.training.objectives.clip import (
    ClipObjective,
    equal_captions,
    hard_negative_loss,
    infonce,
    siglip,
)

WORDS, CONTEXT, SIZE = 20, 6, 16
CONFIG = ClipConfig(
    embedding=16,
    image_width=16,
    image_stages=2,
    image_blocks=1,
    text_width=32,
    text_depth=1,
    preceding_tokens=0,
)


def build(**fields) -> Clip:
    torch.manual_seed(0)
    return Clip(CONFIG.model_copy(update=fields), WORDS, CONTEXT, SIZE)


def colored_batch(seed: int, rows: int = 16) -> ImageBatch:
    """Plain images of four colors whose captions name the color by one token."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.randint(4, (rows,), generator=generator)
    palette = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    images = palette[kind][:, :, None, None].expand(-1, -1, SIZE, SIZE)
    images = (images + 0.1 * torch.rand(rows, 3, SIZE, SIZE, generator=generator)).clamp(0, 1)
    captions = torch.zeros(rows, CONTEXT, dtype=torch.long)
    captions[:, 0], captions[:, 1] = 9, kind + 1
    negatives = captions[:, None].clone()
    negatives[:, 0, 1] = (kind + 1) % 4 + 1
    return ImageBatch(images, captions, negatives)


@torch.no_grad()
def test_tokens_before_a_token_are_part_of_it():
    captions = torch.tensor([[5, 6, 7, 0, 0, 0], [6, 5, 7, 0, 0, 0]])
    before, plain = build(preceding_tokens=2), build(preceding_tokens=0)
    last = [model.text.embedding(captions)[:, 2] for model in (before, plain)]
    assert not torch.allclose(last[0][0], last[0][1])
    assert torch.equal(last[1][0], last[1][1])
    long = build(preceding_tokens=9)  # more than there are positions
    assert long.text.embedding(captions).shape == (2, 6, 32)


def test_vectors_have_unit_length():
    model, batch = build(), colored_batch(0)
    for vectors in (model.encode_image(batch.images), model.encode_text(batch.captions)):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(16))


@torch.no_grad()
def test_padding_does_not_change_a_caption():
    model = build()
    captions = torch.tensor([[3, 4, 5, 0, 0, 0]])
    before = model.encode_text(captions)
    model.text.embedding.own.weight[0] += 1
    torch.testing.assert_close(model.encode_text(captions), before)
    assert not torch.allclose(model.encode_text(torch.tensor([[3, 4, 6, 0, 0, 0]])), before)


@torch.no_grad()
def test_the_image_tower_keeps_places():
    model = build()
    image = torch.rand(1, 3, SIZE, SIZE)
    assert not torch.allclose(model.encode_image(image), model.encode_image(image.flip(-1)))


def test_scale_starts_and_stops_where_the_paper_says():
    model = build()
    assert model.logit_scale.item() == pytest.approx(1 / 0.07, rel=1e-5)
    model.log_scale.data.fill_(20.0)
    assert model.logit_scale.item() == pytest.approx(100.0)


def test_equal_captions_are_not_negatives():
    captions = torch.tensor([[1, 2], [1, 2], [3, 0]])
    same = equal_captions(captions, captions)
    assert same.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    logits = torch.zeros(3, 3)
    # Rows 0 and 1 have one real negative each, row 2 has two.
    expected = (2 * math.log(2) + math.log(3)) / 3
    assert float(infonce(logits, torch.arange(3), same)) == pytest.approx(expected)
    # All alike: nothing to tell apart.
    alike = torch.ones(3, 3, dtype=torch.bool)
    assert float(infonce(torch.randn(3, 3), torch.arange(3), alike)) == 0


def test_images_of_one_label_are_not_negatives():
    model = build()
    objective = ClipObjective(model, model.config)
    batch = colored_batch(0, rows=4)
    captions = torch.tensor([[1, 2, 0, 0, 0, 0], [3, 2, 0, 0, 0, 0]]).repeat(2, 1)
    of_one_label = ImageBatch(batch.images, captions, None, torch.zeros(4, dtype=torch.long))
    assert float(objective.losses(model, of_one_label, 0.0)["loss"]) == 0
    apart = ImageBatch(batch.images, captions, None, torch.arange(4))
    assert float(objective.losses(model, apart, 0.0)["loss"]) > 0


def test_a_caption_cut_differently_by_bpe_dropout_is_no_negative():
    model = build()
    objective = ClipObjective(model, model.config)
    batch = colored_batch(0, rows=2)
    captions = torch.tensor([[1, 2, 0, 0, 0, 0], [3, 4, 2, 0, 0, 0]])
    alike = ImageBatch(batch.images, captions, texts=torch.tensor([7, 7]))
    assert float(objective.losses(model, alike, 0.0)["loss"]) == 0
    apart = ImageBatch(batch.images, captions, texts=torch.tensor([7, 8]))
    assert float(objective.losses(model, apart, 0.0)["loss"]) > 0


def test_siglip_wants_equal_captions_up_and_others_down():
    same = torch.eye(3, dtype=torch.bool)
    good = torch.where(same, 10.0, -10.0)
    assert float(siglip(good, same)) < 0.01 < float(siglip(-good, same))


def test_missing_near_misses_add_nothing():
    own, wrong = torch.zeros(2), torch.zeros(2, 1)
    real = torch.tensor([[True], [False]])
    assert float(hard_negative_loss(own, wrong, real)) == pytest.approx(math.log(2) / 2)


@pytest.mark.parametrize("loss", ["infonce", "siglip"])
def test_every_parameter_gets_a_gradient(loss):
    model = build(loss=loss)
    # Residual branches start at zero, which hides what feeds them.
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    objective = ClipObjective(model, model.config)
    objective.losses(model, colored_batch(0), 0.0)["loss"].backward()
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    assert [n for n, p in trained if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("loss", ["infonce", "siglip"])
def test_it_learns_which_caption_belongs(loss):
    model = build(loss=loss)
    objective = ClipObjective(model, model.config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(40):
        optimizer.zero_grad()
        objective.losses(model, colored_batch(step), 0.0)["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        batch = colored_batch(1000, rows=64)
        images, texts = model.encode_image(batch.images), model.encode_text(batch.captions)
        wrong = model.encode_text(batch.negatives[:, 0])
        assert ((images * texts).sum(1) > (images * wrong).sum(1)).float().mean() > 0.9


def test_a_share_of_the_images_is_shown_as_decoded():
    model = build(reconstructions=0.25)
    objective = ClipObjective(model, model.config, autoencode=torch.zeros_like)
    shown = objective.with_reconstructions(torch.ones(8, 3, SIZE, SIZE))
    assert shown.flatten(1).amax(1).tolist() == [0, 0, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("loss", ["infonce", "siglip"])
def test_logits_are_fp32_under_autocast(loss, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    images, texts, wrong = torch.nn.functional.normalize(
        torch.randn(3, 4, 16, generator=generator), dim=-1
    )
    model = build(loss=loss)
    monkeypatch.setattr(model, "encode_image", lambda _: images)
    monkeypatch.setattr(model, "encode_text", lambda ids: wrong if ids[0, 0] == 9 else texts)
    captions = torch.arange(1, 5)[:, None].expand(4, 8).clone()
    batch = ImageBatch(torch.zeros(4, 3, 32, 32), captions, torch.full((4, 1, 8), 9))
    objective = ClipObjective(model, model.config)
    whole = objective.losses(model, batch, 0.0)
    with torch.autocast("cpu", torch.bfloat16):
        lowered = objective.losses(model, batch, 0.0)
    assert whole["hard"] > 0
    for name, value in whole.items():
        assert torch.equal(value, lowered[name]), name

"""Ranking captions for an image."""

import pytest
import torch
from PIL import Image

from dalle_mini_impl.data.synthetic.rendering import render_scene
from dalle_mini_impl.data.synthetic.scenes import Object, Scene
from dalle_mini_impl.images import to_tensor
from dalle_mini_impl.pipeline import TextToImage
from tests.test_attribute_swaps import FIXTURE, PAIRS
from tests.tiny import tiny_run

CAPTIONS = ["a red heart", "a blue star", "two green squares", "a small ring"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="module")
def model(run) -> TextToImage:
    return TextToImage.from_pretrained(run, "cpu")


@pytest.fixture
def image_file(tmp_path):
    path = tmp_path / "image.png"
    Image.effect_noise((40, 40), 80).convert("RGB").save(path)
    return path


def test_scores_are_those_of_the_models(model, image_file):
    image = Image.open(image_file)
    ranked = model.rank_captions(image, CAPTIONS)
    assert sorted(r.caption for r in ranked) == sorted(CAPTIONS)
    pixels = to_tensor([image], 32)
    codes = model.image_tokenizer.encode(pixels)
    for found in ranked:
        ids = torch.from_numpy(model.captions.encode([found.caption]))
        with torch.no_grad():
            own = model.dalle.log_likelihood(ids, codes).sum()
            null = model.dalle.log_likelihood(torch.zeros_like(ids), codes).sum()
            cosine = model.clip.encode_image(pixels) @ model.clip.encode_text(ids).T
        assert found.log_likelihood == pytest.approx(own.item(), abs=1e-3)
        assert found.log_likelihood_ratio == pytest.approx((own - null).item(), abs=1e-3)
        assert found.clip_score == pytest.approx(cosine.item(), abs=1e-5)


def test_the_order_is_the_one_that_was_asked_for(model, image_file):
    image = Image.open(image_file)
    by_likelihood = [r.log_likelihood for r in model.rank_captions(image, CAPTIONS)]
    assert by_likelihood == sorted(by_likelihood, reverse=True)
    by_clip = [r.clip_score for r in model.rank_captions(image, CAPTIONS, "clip")]
    assert by_clip == sorted(by_clip, reverse=True)


@pytest.mark.parametrize("attribute", list(PAIRS))
def test_a_trained_model_tells_the_true_caption_from_one_with_an_attribute_exchanged(attribute):
    trained = TextToImage.from_pretrained(FIXTURE, "cpu")
    for pair in PAIRS[attribute]:
        for caption in pair:
            _, size, color, shape, *_, background, _ = caption.split()
            side = {"small": 16, "large": 24}[size]
            scene = Scene((Object(shape, color, side, x=16, y=16),), background)
            ranked = trained.rank_captions(render_scene(scene), list(pair))
            assert ranked[0].caption == caption
            assert ranked[0].log_likelihood > ranked[1].log_likelihood + 2


def test_a_model_that_does_not_see_the_words_cannot_tell():
    blind = TextToImage.from_pretrained(FIXTURE, "cpu")
    for parameter in blind.dalle.embedding.token.parameters():
        parameter.zero_()
    first, second = PAIRS["color"][0]
    ranked = blind.rank_captions(render_scene(Scene((), "white")), [first, second])
    assert ranked[0].log_likelihood == pytest.approx(ranked[1].log_likelihood, abs=1e-3)


def test_an_order_without_a_clip_for_it_is_refused(run, image_file):
    model = TextToImage.from_pretrained(run, "cpu")
    model.clip = None
    assert model.rank_captions(Image.open(image_file), CAPTIONS)[0].clip_score is None
    with pytest.raises(ValueError, match="rank_by is 'both', but there is no CLIP"):
        model.rank_captions(Image.open(image_file), CAPTIONS, "both")


def test_many_captions_are_scored_as_few_are(model, image_file):
    image = Image.open(image_file)
    many = [f"{number} red stars" for number in range(70)]
    found = {r.caption: r.log_likelihood for r in model.rank_captions(image, many)}
    few = {r.caption: r.log_likelihood for r in model.rank_captions(image, many[:3])}
    assert all(found[caption] == pytest.approx(few[caption], abs=1e-3) for caption in few)

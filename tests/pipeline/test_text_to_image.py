"""TextToImage: one caption or many, where it is, seeds, and captions to move away from."""

import pytest
import torch

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.pipeline import Results, TextToImage
from tests.tiny import tiny_run

CAPTIONS = ["a red heart", "two large blue stars on white", "a ring above a cross"]
EXACT = {"precision": "fp32", "compile": "off"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="module")
def model(run):
    return TextToImage.from_pretrained(run, "cpu")


def codes(results: Results) -> list[tuple[int, ...]]:
    return [result.codes for result in results]


@pytest.mark.parametrize(("guidance", "batch_size"), [(1.0, 64), (2.0, 64), (2.0, 2), (2.0, 8)])
@pytest.mark.parametrize("negative", ["", "a blue ring"])
def test_sampling_many_captions_gives_the_images_of_each_alone(
    model, guidance, batch_size, negative
):
    config = model.sampling.model_copy(
        update={**EXACT, "guidance": guidance, "candidates": 4, "batch_size": batch_size}
    )
    seeds = [5, 100, 7]
    together = list(model.sample(CAPTIONS, seeds, config, negative=negative))
    for caption, seed, own in zip(CAPTIONS, seeds, together, strict=True):
        alone = next(model.sample([caption], [seed], config, negative=negative))
        assert own.caption == caption
        assert own.seeds == tuple(range(seed, seed + 4))
        assert torch.equal(own.codes, alone.codes)
        torch.testing.assert_close(own.pixels, alone.pixels, atol=1e-4, rtol=0)
        torch.testing.assert_close(own.clip_scores, alone.clip_scores, atol=1e-4, rtol=0)
        ratios = own.log_likelihood_ratios, alone.log_likelihood_ratios
        torch.testing.assert_close(*ratios, atol=1e-2, rtol=0)


def test_a_list_of_captions_gives_the_results_of_each(model):
    together = model(CAPTIONS, seed=4, **EXACT)
    assert [own[0].caption for own in together] == CAPTIONS
    for caption, own in zip(CAPTIONS, together, strict=True):
        assert codes(own) == codes(model(caption, seed=4, **EXACT))
    apart = model(CAPTIONS, seed=[4, 50, 90], **EXACT)
    assert codes(apart[0]) == codes(together[0])
    assert codes(apart[1]) == codes(model(CAPTIONS[1], seed=50, **EXACT))
    assert model([]) == []


def test_a_generator_draws_the_seeds(model):
    generator = torch.Generator().manual_seed(3)
    first, second = (model(CAPTIONS[0], generator=generator, **EXACT) for _ in range(2))
    assert codes(first) != codes(second)
    again = model(CAPTIONS[0], generator=torch.Generator().manual_seed(3), **EXACT)
    assert codes(again) == codes(first)
    begin = first[0].seed - first[0].candidate
    assert codes(model(CAPTIONS[0], seed=begin, **EXACT)) == codes(first)
    two = model(["a", "a"], generator=generator, **EXACT)
    assert codes(two[0]) != codes(two[1])


def test_seeds_that_do_not_fit_are_refused(model):
    with pytest.raises(ValueError, match="seed and generator exclude each other"):
        model("a", seed=1, generator=torch.Generator())
    with pytest.raises(ValueError, match="2 seeds for 3 captions"):
        model(CAPTIONS, seed=[1, 2])


def test_without_a_negative_caption_guidance_is_plain(model):
    plain = model(CAPTIONS[0], guidance=3.0, **EXACT)
    assert codes(model(CAPTIONS[0], guidance=3.0, negative="", **EXACT)) == codes(plain)
    away = model(CAPTIONS[0], guidance=3.0, negative="a red heart on white", **EXACT)
    assert codes(away) != codes(plain)
    assert away[0].negative == "a red heart on white"


def test_without_guidance_a_negative_caption_does_nothing(model):
    plain = model(CAPTIONS[0], guidance=1.0, **EXACT)
    assert codes(model(CAPTIONS[0], guidance=1.0, negative="a ring", **EXACT)) == codes(plain)


def test_guidance_of_zero_samples_from_the_negative_caption(model):
    away = model(CAPTIONS[0], guidance=0.0, negative=CAPTIONS[1], rank_by="none", **EXACT)
    own = model(CAPTIONS[1], guidance=1.0, rank_by="none", **EXACT)
    assert codes(away) == codes(own)


def test_dtype_chooses_the_precision_of_sampling(run, monkeypatch):
    monkeypatch.setattr("dalle_mini_impl.precision.native_bf16", lambda device: True)
    model = TextToImage.from_pretrained(str(run.path), device="cpu", dtype=torch.bfloat16)
    assert model.sampling.precision == "bf16"
    assert model.to(torch.float32) is model
    assert model.sampling.precision == "fp32"
    with pytest.raises(ConfigError, match=r"dtype torch.float16: not supported; use torch.float32"):
        model.to(dtype=torch.float16)
    monkeypatch.setattr("dalle_mini_impl.precision.native_bf16", lambda device: False)
    with pytest.raises(ConfigError, match="by emulation"):
        model.to(dtype=torch.bfloat16)


def test_moving_takes_all_models_along(run):
    model = TextToImage.from_pretrained(run, "cpu").to("meta")
    assert model.device.type == "meta"
    for part in (model.image_tokenizer, model.dalle, model.clip, model.code_sampler.model):
        assert {weight.device.type for weight in part.parameters()} == {"meta"}


def test_a_device_that_is_not_there_is_refused(run):
    with pytest.raises(ConfigError, match="device gpu: not available here; use cpu"):
        TextToImage.from_pretrained(run, "gpu")


def test_a_model_built_in_inference_mode_samples(run, model):
    with torch.inference_mode():
        built = TextToImage.from_pretrained(run, "cpu")
        inside = built(CAPTIONS[0], seed=3, num_images=4)
    outside = built(CAPTIONS[0], seed=3, num_images=4)
    assert codes(inside) == codes(outside) == codes(model(CAPTIONS[0], seed=3, num_images=4))

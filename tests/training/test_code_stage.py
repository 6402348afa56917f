"""The whole collection is encoded, as many images at a time as memory allows."""

from itertools import islice

import numpy as np
import pytest
import torch

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.data.sources import open_source
from dalle_mini_impl.experiment.models import new_image_tokenizer
from dalle_mini_impl.images import psnr
from dalle_mini_impl.kernels import chunks
from dalle_mini_impl.runs.loading import frozen, load_image_tokenizer
from dalle_mini_impl.runs.named import find_run
from dalle_mini_impl.training.code_stage import encoded, encodings_of
from tests.tiny import SETTINGS, tiny_experiment


@pytest.mark.parametrize(("memory", "at_once"), [(1, 1), (2**40, 128)])
def test_images_are_encoded_in_chunks(monkeypatch, memory, at_once):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", memory)
    experiment = tiny_experiment()
    tokenizer = new_image_tokenizer(experiment).eval()
    sizes = []
    tokenizer.encoder.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (130, 32, 32, 3), np.uint8)
    store = type("Images", (), {"images": images, "__len__": lambda self: len(images)})()
    chunked = encoded(store, experiment, tokenizer, 1, torch.device("cpu"))
    codes = np.concatenate(list(chunked))
    assert max(sizes) == at_once
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        expected = tokenizer.encode(pixels).numpy()
    assert (codes == expected).mean() > 0.99  # other chunks round differently


@pytest.fixture(scope="module")
def trained():
    """The pretrained model's image tokenizer, and images of its kind."""
    run = find_run("shapes")
    source = open_source(run.experiment.data, "train")
    images = np.stack([np.asarray(example.open(64)) for example in islice(source, 40)])
    store = type("Images", (), {"images": images, "__len__": lambda self: len(images)})()
    return run.experiment, frozen(load_image_tokenizer(run)), store


def test_an_experiment_without_augmentation_encodes_images_once():
    assert encodings_of(tiny_experiment()) == 1
    transformer = SETTINGS["transformer"] | {"posterior_temperature": 0.25, "encodings": 3}
    assert encodings_of(tiny_experiment(transformer=transformer)) == 3
    assert encodings_of(tiny_experiment(data=SETTINGS["data"] | {"random_shift": 1})) == 4


def test_codes_of_the_posterior_differ_and_decode_to_the_image(trained):
    experiment, tokenizer, store = trained
    own = experiment.transformer.model_copy(update={"posterior_temperature": 0.25})
    drawn = experiment.model_copy(update={"transformer": own})
    cpu = torch.device("cpu")
    codes = [
        np.concatenate(list(encoded(store, each, tokenizer, variants, cpu)))
        for each, variants in ((experiment, 1), (drawn, 3), (drawn, 3))
    ]
    assert np.array_equal(codes[1], codes[2])
    plain, *others = np.split(codes[1], 3)
    assert np.array_equal(plain, codes[0])
    pixels = torch.from_numpy(store.images).permute(0, 3, 1, 2) / 255
    expected = float(psnr(tokenizer.decode(torch.from_numpy(plain)), pixels).mean())
    for other in others:
        assert 0.05 < (other != plain).mean() < 0.7
        found = float(psnr(tokenizer.decode(torch.from_numpy(other)), pixels).mean())
        assert found > expected - 1.5
    assert (others[0] != others[1]).any()


def test_a_quantizer_without_a_posterior_draws_nothing():
    fsq = {"preset": "fsq", "autoencoder": {"width": 32, "blocks": 1}}
    tokenizer = new_image_tokenizer(tiny_experiment(image_tokenizer=fsq))
    with pytest.raises(ConfigError, match="no posterior to draw codes from"):
        tokenizer.sample_codes(torch.rand(1, 3, 32, 32), 1.0, torch.Generator())

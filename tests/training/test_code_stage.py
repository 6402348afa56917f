"""The whole collection is encoded, as many images at a time as memory allows."""

import numpy as np
import pytest
import torch

from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.experiment.models import new_image_tokenizer
from dalle_mini_impl.kernels import chunks
from dalle_mini_impl.training.code_stage import encoded
from tests.tiny import tiny_experiment


@pytest.mark.parametrize(("memory", "at_once"), [(1, 1), (2**40, 128)])
def test_images_are_encoded_in_chunks(monkeypatch, memory, at_once):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", memory)
    tokenizer = new_image_tokenizer(tiny_experiment()).eval()
    sizes = []
    tokenizer.encoder.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (130, 32, 32, 3), np.uint8)
    store = type("Images", (), {"images": images, "__len__": lambda self: len(images)})()
    chunked = encoded(store, DataConfig(image_size=32), tokenizer, 1, torch.device("cpu"))
    codes = np.concatenate(list(chunked))
    assert max(sizes) == at_once
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        expected = tokenizer.encode(pixels).numpy()
    assert (codes == expected).mean() > 0.99  # other chunks round differently

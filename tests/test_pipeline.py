"""TextToImage: many captions sampled together."""

import pytest
import torch

from dalle_mini_impl.pipeline import TextToImage
from tests.tiny import tiny_run

CAPTIONS = ["a red heart", "two large blue stars on white", "a ring above a cross"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return TextToImage.from_pretrained(tiny_run(tmp_path_factory.mktemp("runs") / "tiny"), "cpu")


@pytest.mark.parametrize(("guidance", "batch_size"), [(1.0, 64), (2.0, 64), (2.0, 2), (2.0, 8)])
def test_sampling_many_captions_gives_the_images_of_each_alone(model, guidance, batch_size):
    config = model.sampling.model_copy(
        update={"guidance": guidance, "candidates": 4, "batch_size": batch_size}
    )
    seeds = [5, 100, 7]
    together = list(model.sample(CAPTIONS, seeds, config))
    for caption, seed, own in zip(CAPTIONS, seeds, together, strict=True):
        alone = next(model.sample([caption], [seed], config))
        assert own.caption == caption
        assert own.seeds == tuple(range(seed, seed + 4))
        assert torch.equal(own.codes, alone.codes)
        torch.testing.assert_close(own.pixels, alone.pixels, atol=1e-4, rtol=0)
        torch.testing.assert_close(own.clip_scores, alone.clip_scores, atol=1e-4, rtol=0)
        ratios = own.log_likelihood_ratios, alone.log_likelihood_ratios
        torch.testing.assert_close(*ratios, atol=1e-2, rtol=0)

"""The code spaces of small image tokenizers of every type."""

import pytest
import torch

from dalle_mini_impl.models.tokenizers.configs import ImageTokenizerConfig
from dalle_mini_impl.models.tokenizers.image_tokenizer import build_image_tokenizer
from dalle_mini_impl.vqgan_clip.code_space import CodeSpace

TOKENIZERS = {
    "fsq": {"preset": "fsq", "quantizer": {"levels": "4x4"}},
    "dvae": {"preset": "dvae", "quantizer": {"codes": 16, "width": 6}},
    "factors": {"preset": "dvae", "quantizer": {"codes": [6, 4], "width": 3}},
    "laplace": {
        "quantizer": {"codes": 16, "logits": "free", "relaxation": "soft"},
        "likelihood": "logit_laplace",
    },
    "vqgan": {"preset": "vqgan", "quantizer": {"codes": 16, "width": 6}},
    "palette": {
        "preset": "fsq",
        "quantizer": {"levels": ["3x3", "3", "3"]},
        "autoencoder": {"type": "palette"},
    },
}


@pytest.fixture(params=list(TOKENIZERS))
def space(request):
    torch.manual_seed(0)
    settings = TOKENIZERS[request.param]
    networks = {"width": 32, "blocks": 1, **settings.get("autoencoder", {})}
    config = ImageTokenizerConfig.model_validate({**settings, "autoencoder": networks})
    tokenizer = build_image_tokenizer(config, 32)
    return CodeSpace(tokenizer.eval().requires_grad_(False))

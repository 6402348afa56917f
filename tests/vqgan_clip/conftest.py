"""The code spaces of small image tokenizers of every type."""

import pytest
import torch

from dalle_mini_impl.models.tokenizers.configs import DvaeConfig, FsqConfig, VqganConfig
from dalle_mini_impl.models.tokenizers.image_tokenizer import build_image_tokenizer
from dalle_mini_impl.models.tokenizers.palette import PaletteConfig
from dalle_mini_impl.vqgan_clip.code_space import CodeSpace

TOKENIZERS = {
    "fsq": FsqConfig(levels=(4, 4), width=32, blocks=1),
    "dvae": DvaeConfig(code_count=16, code_width=6, width=32, blocks=1),
    "vqgan": VqganConfig(code_count=16, code_width=6, width=32, blocks=1),
    "palette": PaletteConfig(width=32, blocks=1, pattern_levels=(3, 3), color_levels=(3,)),
}


@pytest.fixture(params=list(TOKENIZERS))
def space(request):
    torch.manual_seed(0)
    tokenizer = build_image_tokenizer(TOKENIZERS[request.param], 32)
    return CodeSpace(tokenizer.eval().requires_grad_(False))

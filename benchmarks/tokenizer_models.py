"""The image tokenizers that are compared: this project's, and DALLE-pytorch's `DiscreteVAE`."""

from dataclasses import dataclass
from typing import Any

import torch

from benchmarks import peers
from benchmarks.tokenizer_types import PAPER
from dalle_mini_impl.models.tokenizers.configs import ImageTokenizerConfig
from dalle_mini_impl.models.tokenizers.image_tokenizer import build_image_tokenizer
from dalle_mini_impl.precision import Precision
from dalle_mini_impl.training.objectives.image_tokenizer import ImageTokenizerObjective
from dalle_mini_impl.training.objectives.objective import Objective


@dataclass(frozen=True)
class TokenizerOptions:
    """The image tokenizers."""

    batch: int = 32
    """Images in a step."""
    image_size: int = 64
    """Side of the images in pixels."""
    downsampling: int = 8
    """Side in pixels of the square that one code stands for."""
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    """Columns; contenders are compared within one."""
    quality: float = 0.0
    """Also train each for this many seconds and measure its reconstruction PSNR; 0 does not."""
    quality_batch: int = 16
    """Images in a step of that training, for every contender."""
    data: str = "shapes"
    """Images for it: shapes, or a folder of images."""
    data_limit: int = 10000
    """Images to train it on, at most."""


def configurations(options: TokenizerOptions) -> dict[str, ImageTokenizerConfig]:
    """This project's tokenizers by name, 512 codes each."""
    f = options.downsampling
    paper = {"quantizer": PAPER, "likelihood": "logit_laplace"}
    settings: dict[str, dict[str, Any]] = {
        "dvae": {},
        "dvae, two factors": {"quantizer": {"codes": (512, 512)}},
        "dvae, as in the paper": paper,
        "fsq": {"preset": "fsq"},
        "fsq, patches": {"preset": "fsq", "autoencoder": {"type": "patches"}},
        "vq": {"quantizer": {"type": "vector"}},
    }
    return {
        name: ImageTokenizerConfig.model_validate(
            {
                **own,
                "downsampling": f,
                "autoencoder": {"patch": min(4, f), **own.get("autoencoder", {})},
            }
        )
        for name, own in settings.items()
    }


def build(config: ImageTokenizerConfig, image_size: int) -> Objective:
    """A fresh tokenizer with its objective."""
    torch.manual_seed(0)
    return ImageTokenizerObjective(build_image_tokenizer(config, image_size), config)


PEER_SETTINGS: dict[str, dict[str, int]] = {
    "defaults": {},
    "train_vae.py": {"hidden_dim": 256, "codebook_dim": 512, "num_resnet_blocks": 2},
}


def build_peer(options: TokenizerOptions, settings: dict[str, int]) -> Any:
    """DALLE-pytorch's `DiscreteVAE` with 512 codes."""
    torch.manual_seed(0)
    layers = options.downsampling.bit_length() - 1
    return peers.import_dalle_pytorch().DiscreteVAE(
        image_size=options.image_size, num_layers=layers, num_tokens=512, **settings
    )

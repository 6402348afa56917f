"""CLIP: two towers whose unit vectors agree for an image and its caption.

Radford et al. 2021, arXiv 2103.00020. The image tower is convolutional and keeps places when it
pools, because captions say left and right; the text tower is a transformer over real tokens.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from dalle_mini_impl.models.config import ClipConfig
from dalle_mini_impl.models.token_embedding import TokenEmbedding
from dalle_mini_impl.models.transformer import RMSNorm, build_block

LARGEST_LOG_SCALE = math.log(100)
"""ln of what similarities are multiplied by at most."""


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions under a group norm, the second starting at zero."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.second(F.gelu(self.first(F.gelu(self.norm(x)))))


class ImageTower(nn.Module):
    """Images to vectors: space-to-depth, residual stages, and a pool that knows where."""

    def __init__(self, config: ClipConfig, image_size: int):
        super().__init__()
        smallest = config.patch * 2 ** (config.image_stages - 1)
        if image_size % smallest:
            raise ValueError(
                f"image size {image_size} is not divisible by {smallest}, the image tower's "
                "patch · 2^(stages - 1): change clip.patch or clip.image_stages"
            )
        self.patch = config.patch
        width = config.image_width
        layers: list[nn.Module] = [nn.Conv2d(3 * config.patch**2, width, 3, padding=1)]
        for stage in range(config.image_stages):
            if stage:
                layers.append(nn.Conv2d(width, 2 * width, 2, stride=2))
                width *= 2
            layers += [ResidualBlock(width) for _ in range(config.image_blocks)]
        self.stages = nn.Sequential(*layers)
        side = image_size // smallest
        self.norm = nn.GroupNorm(8, width)
        self.width = width
        self.reduce = nn.Conv2d(width, 64, 1)
        self.project = nn.Linear(64 * side * side + width, config.embedding)

    def features(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c g g"]:
        """The last stage's map, before pooling."""
        x = F.pixel_unshuffle(images * 2 - 1, self.patch)
        return F.gelu(self.norm(self.stages(x)))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        x = self.features(images)
        places = rearrange(self.reduce(x), "b c h w -> b (h w c)")
        return self.project(torch.cat((places, x.mean(dim=(2, 3))), dim=1))


class TextTower(nn.Module):
    """Caption ids to vectors: a transformer, averaged over the tokens that are not padding."""

    def __init__(self, config: ClipConfig, vocabulary_size: int, context: int):
        super().__init__()
        width = config.text_width
        self.embedding = TokenEmbedding(vocabulary_size, width, config.preceding_tokens)
        self.position = nn.Embedding(context, width)
        nn.init.normal_(self.position.weight, std=0.02)
        self.blocks = nn.ModuleList(
            build_block("modern", width, config.text_heads, 4 * width)
            for _ in range(config.text_depth)
        )
        self.norm = RMSNorm(width)
        self.project = nn.Linear(width, config.embedding)

    def forward(self, captions: Int[Tensor, "b t"]) -> Float[Tensor, "b e"]:
        x = self.embedding(captions) + self.position.weight
        for block in self.blocks:
            # Causal, so that padding on the right cannot reach a real token.
            x = block(x)
        real = (captions != 0).to(x.dtype)
        # An empty caption is represented by its first position.
        real[:, 0] = 1
        pooled = (self.norm(x) * real[:, :, None]).sum(1) / real.sum(1, keepdim=True)
        return self.project(pooled)


class Clip(nn.Module):
    """Contrastive language–image pre-training."""

    adamw_parameters = ("image.project", "text.project")

    def __init__(self, config: ClipConfig, vocabulary_size: int, context: int, image_size: int):
        super().__init__()
        self.config = config
        self.image_size, self.context = image_size, context
        self.image = ImageTower(config, image_size)
        self.text = TextTower(config, vocabulary_size, context)
        infonce = config.loss == "infonce"
        # ln(1 / 0.07) as in CLIP; ln 10 and bias -10 as in SigLIP (arXiv 2303.15343).
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07 if infonce else 10.0)))
        self.bias = nn.Parameter(torch.tensor(0.0 if infonce else -10.0), requires_grad=not infonce)

    @property
    def logit_scale(self) -> Float[Tensor, ""]:
        """What similarities are multiplied by, at most 100."""
        return self.log_scale.clamp(max=LARGEST_LOG_SCALE).exp()

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Bound the scale's parameter: beyond the bound it has no gradient and would stay there."""
        self.log_scale.clamp_(max=LARGEST_LOG_SCALE)

    def encode_image(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Unit vectors of images with values in [0, 1]."""
        return F.normalize(self.image(images).float(), dim=-1)

    def encode_text(self, captions: Int[Tensor, "b t"]) -> Float[Tensor, "b e"]:
        """Unit vectors of caption ids padded with 0."""
        return F.normalize(self.text(captions).float(), dim=-1)

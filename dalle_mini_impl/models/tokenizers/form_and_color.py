"""An encoder that codes what is drawn and in which colors apart, for images on a plain background.

The form of a patch is read from each pixel's distance to the background's color, which is the same
for a red and for a blue circle. So a shape and a color that training never showed together still
have known codes, and a transformer that predicts one factor after the other can combine them.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dalle_mini_impl.kernels.largest_nearby import largest_nearby
from dalle_mini_impl.models.tokenizers.autoencoder_configs import FormAndColorConfig
from dalle_mini_impl.models.tokenizers.patches import PatchEncoder


class FormAndColorEncoder(nn.Module):
    """Images in [0, 1] to the features of each patch: its form's, then its colors'."""

    def __init__(
        self,
        config: FormAndColorConfig,
        downsampling: int,
        features: Sequence[int],
        feature_gain: float,
    ):
        super().__init__()
        form, *colors = features
        self.reach = 2 * config.margin + 1
        self.form = PatchEncoder(config, downsampling, form, feature_gain)
        # Colors are easier than forms.
        small = config.model_copy(update={"width": config.width // 2, "blocks": 1})
        self.color = PatchEncoder(small, downsampling, sum(colors), feature_gain)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c g g"]:
        form = relief(images, self.reach).expand(-1, 3, -1, -1)
        return torch.cat((self.form(form), self.color(images)), dim=1)


def relief(images: Float[Tensor, "b 3 h w"], reach: int) -> Float[Tensor, "b 1 h w"]:
    """How far each pixel is from the background's color, in [0, 1].

    The background is the median color. Distances are divided by the largest one within `reach`
    pixels' width, so that edges look alike at any contrast.
    """
    background = images.flatten(2).median(dim=2).values[:, :, None, None]
    distance = (images - background).square().sum(dim=1, keepdim=True).sqrt()
    return distance / (largest_nearby(distance, reach) + 0.05)

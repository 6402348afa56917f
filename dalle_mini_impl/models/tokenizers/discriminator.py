"""The patch discriminator of VQGAN: a map of scores, each for one patch of the image."""

from jaxtyping import Float
from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """Images in [0, 1] to scores, positive where a patch looks real.

    Isola et al. 2017, arXiv 1611.07004: `halvings` convolutions of 4×4 that halve the image and
    two that do not, from `width` channels to at most 8 times as many. With 3 halvings a score sees
    about 70×70 pixels.
    """

    def __init__(self, width: int, halvings: int):
        super().__init__()
        widths = [min(2**i, 8) * width for i in range(halvings + 1)]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=2, padding=1)]
        for level in range(1, halvings + 1):
            stride = 2 if level < halvings else 1
            layers += [
                nn.LeakyReLU(0.2),
                # Batch norm would let the images of a batch, and of a process, see each other.
                nn.Conv2d(widths[level - 1], widths[level], 4, stride, padding=1, bias=False),
                nn.GroupNorm(1, widths[level]),
            ]
        layers += [nn.LeakyReLU(0.2), nn.Conv2d(widths[-1], 1, 4, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 u v"]:
        return self.layers(2 * images - 1).float()

"""The palette tokenizer's objective: reconstruct patches, few of them of a single color."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from dalle_mini_impl.data.batches import ImageBatch
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer
from dalle_mini_impl.models.tokenizers.palette import PaletteConfig
from dalle_mini_impl.training.objectives.reconstruction import HardReconstruction, plain_pixels

PLAIN = 1e-4
"""Variance of its values, summed over channels, below which a patch is of one color."""


class PaletteObjective(HardReconstruction):
    """The squared error of patches, which are sampled and put together in any order.

    The tokenizer codes each patch by itself, so their neighbors do not matter.
    """

    compile_models = True  # The patches are sampled with a generator, outside the model.

    def __init__(self, model: ImageTokenizer, config: PaletteConfig):
        self.model = model
        self.config = config

    def losses(
        self,
        model: nn.Module,
        batch: ImageBatch,
        progress: float,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """`loss` and `reconstruction`, the squared error that it is."""
        images = self.collages(batch.images, generator)
        error = (plain_pixels(self.model, model(images).maps) - images).square().mean()
        return {"loss": error, "reconstruction": error}

    def collages(
        self, images: Float[Tensor, "b 3 h w"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "n 3 h w"]:
        """Images made of about `config.patches` patches sampled from the batch; at least one.

        Most of a drawing is background: sampled evenly, its few edges would be learned last.
        """
        grid, side = self.model.grid, self.model.downsampling
        patches = rearrange(images, "b c (h p) (w q) -> (b h w) c p q", p=side, q=side)
        plain = patches.var(dim=(2, 3)).sum(dim=1) < PLAIN
        shares = torch.where(plain, self.config.plain_patches, 1.0)
        count = max(1, self.config.patches // grid**2) * grid**2
        chosen = torch.multinomial(shares, count, replacement=True, generator=generator)
        return rearrange(patches[chosen], "(n h w) c p q -> n c (h p) (w q)", h=grid, w=grid)

"""The objective of finite scalar quantization (arXiv 2309.15505)."""

import torch
from torch import Tensor, nn

from dalle_mini_impl.data.batches import ImageBatch
from dalle_mini_impl.models.tokenizers.configs import FsqConfig
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer
from dalle_mini_impl.training.objectives.reconstruction import (
    HardReconstruction,
    foreground_weights,
    pixel_errors,
    plain_pixels,
)


class FsqObjective(HardReconstruction):
    """A pixel loss alone: finite scalars need no other."""

    def __init__(self, model: ImageTokenizer, config: FsqConfig):
        self.model = model
        self.config = config

    def losses(
        self,
        model: nn.Module,
        batch: ImageBatch,
        progress: float,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """`loss` and `reconstruction`, the weighted pixel loss that it is."""
        difference = plain_pixels(self.model, model(batch.images).maps) - batch.images
        errors = pixel_errors(difference, self.config.pixel_loss)
        weights = foreground_weights(batch.images, self.config.foreground)
        reconstruction = (errors * weights).mean()
        return {"loss": reconstruction, "reconstruction": reconstruction}

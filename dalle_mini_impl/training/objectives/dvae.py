"""The discrete VAE's objective (arXiv 2102.12092, appendix A.2)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dalle_mini_impl.data.batches import ImageBatch
from dalle_mini_impl.images import psnr
from dalle_mini_impl.models.tokenizers.configs import DvaeConfig
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer
from dalle_mini_impl.models.tokenizers.pixels import LogitLaplacePixels
from dalle_mini_impl.models.tokenizers.quantizers import GumbelQuantizer, gumbel_noise
from dalle_mini_impl.training.objectives.reconstruction import (
    HardReconstruction,
    foreground_weights,
)
from dalle_mini_impl.training.schedules import cosine


class DvaeObjective(HardReconstruction):
    """DALL·E's evidence lower bound (arXiv 2102.12092, appendix A.2), averaged per pixel value.

    The paper divides the sum over the image by its number of values. The divergence is
    averaged over positions here, so the weight β / (3·downsampling²) keeps the proportion.
    """

    compile_models = True

    def __init__(self, model: ImageTokenizer, config: DvaeConfig):
        self.model = model
        self.config = config

    def temperature(self, progress: float) -> float:
        """τ of the relaxation at `progress` in [0, 1]."""
        config = self.config
        return cosine(progress, 0.0, config.annealing, config.temperature, config.final_temperature)

    def kl_weight(self, progress: float) -> float:
        """β at `progress`, as the paper counts it."""
        return cosine(progress, 0.0, self.config.kl_warmup, 0.0, self.config.kl_weight)

    def losses(
        self,
        model: nn.Module,
        batch: ImageBatch,
        progress: float,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """`loss`; `reconstruction`, the weighted negative `likelihood` (nats per value); `kl` (nats
        per position); and the present `temperature` and `kl_weight`.
        """
        images = batch.images
        weight, temperature = self.kl_weight(progress), self.temperature(progress)
        noise = gumbel_noise(self._logits_like(images), generator)
        output = model(images, noise, noise.new_tensor(temperature))
        pixels = self.model.pixels
        assert isinstance(pixels, LogitLaplacePixels)
        likelihood = pixels.negative_log_likelihood(output.maps, images)
        weights = foreground_weights(images, self.config.foreground)
        # The gradient at the mean grows as 1/b, so confident plain areas would outweigh objects.
        scales = pixels.scales(output.maps).detach() ** self.config.scale_weighting
        reconstruction = (likelihood * weights * scales).mean()
        quantizer = self.model.quantizer
        assert isinstance(quantizer, GumbelQuantizer)
        kl = divergence_from_uniform(quantizer.logits(output.features))
        return {
            "loss": reconstruction + weight / (3 * self.config.downsampling**2) * kl,
            "reconstruction": reconstruction,
            "likelihood": -likelihood.mean(),
            "kl": kl,
            "temperature": noise.new_tensor(temperature),
            "kl_weight": noise.new_tensor(weight),
        }

    @torch.no_grad()
    def evaluate(self, model: ImageTokenizer, images: Float[Tensor, "b 3 h w"]) -> dict[str, float]:
        """The usual, and `soft_psnr` of what training sees at its end (seeded noise)."""
        generator = torch.Generator(images.device).manual_seed(0)
        noise = gumbel_noise(self._logits_like(images), generator)
        output = model(images, noise, noise.new_tensor(self.temperature(1.0)))
        soft = psnr(model.pixels.images(output.maps), images).mean().item()
        return super().evaluate(model, images) | {"soft_psnr": soft}

    def _logits_like(self, images: Tensor) -> Float[Tensor, "b k g g"]:
        grid = self.model.grid
        return images.new_empty(len(images), self.model.code_count, grid, grid)


def divergence_from_uniform(logits: Float[Tensor, "b k h w"]) -> Float[Tensor, ""]:
    """KL of the categorical from the uniform prior, in nats, averaged over all positions.

    From the raw logits: the temperature belongs to the relaxation, not to the posterior.
    """
    log_shares = logits.float().log_softmax(dim=1)
    kl = (log_shares.exp() * log_shares).sum(dim=1) + math.log(logits.shape[1])
    return kl.mean()

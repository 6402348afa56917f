"""The objective of the image tokenizer: named parts, each on its own weight."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dalle_mini_impl.data.batches import ImageBatch
from dalle_mini_impl.images import psnr
from dalle_mini_impl.kernels.chunks import in_chunks
from dalle_mini_impl.models.tokenizers.categorical import gumbel_noise
from dalle_mini_impl.models.tokenizers.configs import ImageTokenizerConfig
from dalle_mini_impl.models.tokenizers.convolutions import Decoder
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer, Reconstruction
from dalle_mini_impl.models.tokenizers.quantizer import Relaxation
from dalle_mini_impl.models.tokenizers.quantizer_configs import CategoricalConfig, VectorConfig
from dalle_mini_impl.runs.loading import frozen
from dalle_mini_impl.training.objectives.adversarial import (
    BalancedDiscriminator,
    adaptive_weight,
    discriminator_losses,
)
from dalle_mini_impl.training.objectives.collages import collages
from dalle_mini_impl.training.objectives.feature_distance import Features, perceptual_distance
from dalle_mini_impl.training.objectives.reconstruction import (
    HardReconstruction,
    foreground_weights,
)
from dalle_mini_impl.training.schedules import cosine


class ImageTokenizerObjective(HardReconstruction):
    """Reconstruction and the quantizer's losses; where configured, features and a discriminator.

    With a categorical quantizer, `logit_laplace` and β this is DALL·E's evidence lower bound (arXiv
    2102.12092, appendix A.2), averaged per pixel value: the paper divides the sum over the image by
    its number of values. The divergence is averaged over positions here, so its weight
    β / (3·downsampling²) keeps the proportion.

    features: a frozen network for the perceptual loss; without one there is no perceptual loss.
    """

    def __init__(
        self,
        model: ImageTokenizer,
        config: ImageTokenizerConfig,
        features: Features | None = None,
    ):
        self.model = model
        self.config = config
        self.features = features if config.objective.perceptual.weight > 0 else None
        adversarial = config.objective.adversarial
        self.discriminator = BalancedDiscriminator(adversarial) if adversarial.weight > 0 else None
        self.runs_eagerly = ""
        if self.discriminator is not None:
            self.runs_eagerly = (
                "the adaptive weight differentiates at the last layer, inside what is compiled"
            )
        # Noise and patches are drawn with a generator, outside the model.
        categorical = isinstance(config.quantizer, CategoricalConfig)
        self.compile_models = categorical or config.objective.patches > 0

    def to(self, device: torch.device) -> None:
        """Move the frozen network."""
        if isinstance(self.features, nn.Module):
            frozen(self.features, device)

    def temperature(self, progress: float) -> float:
        """τ of the categorical quantizer's relaxation at `progress` in [0, 1]."""
        own = self.config.quantizer
        assert isinstance(own, CategoricalConfig)
        return cosine(progress, 0.0, own.annealing, own.temperature, own.final_temperature)

    def noise(self, progress: float) -> float:
        """The factor of the categorical quantizer's Gumbel noise at `progress` in [0, 1]."""
        own = self.config.quantizer
        assert isinstance(own, CategoricalConfig)
        return 1.0 if own.noise is None else max(0.0, 1 - progress / own.noise)

    def quantizer_weights(self, progress: float) -> dict[str, float]:
        """The weights of the quantizer's losses, by name, at `progress` in [0, 1]."""
        match self.config.quantizer:
            case CategoricalConfig() as own:
                beta = cosine(progress, 0.0, own.kl_warmup, 0.0, own.kl_weight)
                return {
                    "kl": beta / (3 * self.config.downsampling**2),
                    "entropy_gap": own.entropy_weight,
                    "commitment": own.commitment,
                }
            case VectorConfig() as own:
                return {"commitment": own.commitment, "codebook": 1.0}
        return {}

    def losses(
        self,
        model: nn.Module,
        batch: ImageBatch,
        progress: float,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """`loss`, `reconstruction`, those of the quantizer (nats per position for `kl` and
        `entropy_gap`), and where they take part `perceptual`, `adversarial`, `adversarial_weight`.
        """
        images = self._images(batch.images, generator)
        output = model(images, *self._relaxation(images, progress, generator))
        losses, faithful = self._faithful_losses(images, output, progress)
        if self._discriminator_begun(progress):
            decoded = self.model.pixels.unclamped(output.maps)
            losses |= self._adversarial(decoded, faithful)
            losses["loss"] = losses["loss"] + losses["adversarial_weight"] * losses["adversarial"]
        return losses

    def held_out_losses(self, model: ImageTokenizer, batch: ImageBatch) -> dict[str, Tensor]:
        """`loss` and its parts as at the end of the schedules, without the discriminator's."""
        generator = torch.Generator(batch.images.device).manual_seed(0)
        output = model(batch.images, *self._relaxation(batch.images, 1.0, generator))
        losses, _ = self._faithful_losses(batch.images, output, 1.0)
        return losses

    @property
    def comparable_from(self) -> float:
        """Share of the run in which schedules move what the model is trained for.

        A discriminator makes images sharper and their pixels less exact, so that with one the loss
        without it says nothing of which weights are best: only those of the end count.
        """
        if self.discriminator is not None:
            return 1.0
        own = self.config.quantizer
        if not isinstance(own, CategoricalConfig):
            return 0.0
        warmup = own.kl_warmup if own.kl_weight > 0 else 0.0
        if own.relaxation == "straight-through":
            return warmup
        return max(warmup, own.annealing, own.noise or 0.0)

    def discriminator_losses(
        self,
        discriminator: BalancedDiscriminator,
        model: ImageTokenizer,
        batch: ImageBatch,
        progress: float,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Those of `adversarial.discriminator_losses`; empty before the discriminator's start."""
        if not self._discriminator_begun(progress):
            return {}
        with torch.no_grad():
            latents = self.model.embed(self.model.encode(batch.images))
            decoded = self.model.pixels.unclamped(self.model.decoder(latents))
        own = self.config.objective.adversarial
        return discriminator_losses(discriminator, batch.images, decoded, own)

    @torch.no_grad()
    def evaluate(self, model: ImageTokenizer, images: Float[Tensor, "b 3 h w"]) -> dict[str, float]:
        """The usual, and with a relaxation `soft_psnr`: of what training sees at its end.

        The discriminator backs off if it made the PSNR worse.
        """
        report = super().evaluate(model, images)
        if (quality := self.soft_psnr(model, images)) is not None:
            report["soft_psnr"] = quality.mean().item()
        if self.discriminator is not None:
            self.discriminator.back_off_if_worse(
                report["hard_psnr"], self.config.objective.adversarial.back_off
            )
            report["adversarial_strength"] = self.discriminator.strength.item()
        return report

    def soft_psnr(
        self, model: ImageTokenizer, images: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b"] | None:
        """The PSNR of what training sees at its end; none without a relaxation."""
        generator = torch.Generator(images.device).manual_seed(0)
        if not self._relaxation(images[:1], 1.0, generator):
            return None

        def quality(own: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b"]:
            maps = model(own, *self._relaxation(own, 1.0, generator)).maps
            return psnr(model.pixels.images(maps), own)

        return in_chunks(quality, images)

    def _faithful_losses(
        self, images: Float[Tensor, "b 3 h w"], output: Reconstruction, progress: float
    ) -> tuple[dict[str, Tensor], Float[Tensor, ""]]:
        """All losses but the discriminator's, and the sum of those that compare images."""
        own = self.config.objective
        errors = self.model.pixels.errors(output.maps, images)
        losses = {"reconstruction": (errors * foreground_weights(images, own.foreground)).mean()}
        faithful = losses["reconstruction"]
        if self.features is not None:
            decoded = self.model.pixels.unclamped(output.maps)
            losses["perceptual"] = perceptual_distance(self.features, decoded, images)
            faithful = faithful + own.perceptual.weight * losses["perceptual"]
        weights = self.quantizer_weights(progress)
        loss = faithful + sum(weights[name] * value for name, value in output.losses.items())
        return {"loss": loss} | losses | output.losses, faithful

    def _images(
        self, images: Float[Tensor, "b 3 h w"], generator: torch.Generator | None
    ) -> Float[Tensor, "n 3 h w"]:
        own = self.config.objective
        if own.patches == 0:
            return images
        side = self.model.downsampling
        return collages(images, side, own.patches, own.plain_patches, generator)

    def _relaxation(
        self, images: Tensor, progress: float, generator: torch.Generator | None
    ) -> Relaxation | tuple[()]:
        own = self.config.quantizer
        if not isinstance(own, CategoricalConfig) or own.relaxation == "straight-through":
            return ()
        grid, strength = self.model.grid, self.noise(progress)
        noise = images.new_zeros(len(images), grid, grid, sum(self.model.factors))
        if strength > 0:
            noise = strength * gumbel_noise(noise, generator)
        return Relaxation(noise, images.new_tensor(self.temperature(progress)))

    def _adversarial(
        self, decoded: Float[Tensor, "b 3 h w"], faithful: Float[Tensor, ""]
    ) -> dict[str, Tensor]:
        assert self.discriminator is not None
        own = self.config.objective.adversarial
        adversarial = -self.discriminator(decoded).mean()
        weight = own.weight * self.discriminator.strength
        if own.balance == "adaptive":
            assert isinstance(self.model.decoder, Decoder)
            last = self.model.decoder.last_weight
            weight = weight * adaptive_weight(faithful, adversarial, last)
        return {"adversarial": adversarial, "adversarial_weight": weight}

    def _discriminator_begun(self, progress: float) -> bool:
        return (
            self.discriminator is not None and progress >= self.config.objective.adversarial.start
        )

"""VQGAN's objective (Esser et al. 2021, arXiv 2012.09841) and its discriminator's."""

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dalle_mini_impl.data.batches import ImageBatch
from dalle_mini_impl.models.tokenizers.autoencoder import Decoder
from dalle_mini_impl.models.tokenizers.configs import VqganConfig
from dalle_mini_impl.models.tokenizers.discriminator import PatchDiscriminator
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer
from dalle_mini_impl.models.tokenizers.vector_quantizer import VectorQuantizer
from dalle_mini_impl.runs.loading import frozen
from dalle_mini_impl.training.objectives.reconstruction import (
    HardReconstruction,
    foreground_weights,
    pixel_errors,
    plain_pixels,
)

Features = Callable[[Tensor], Tensor | Sequence[Tensor]]
"""A frozen network: images to one feature map or several, `b c h w` each."""


class BalancedDiscriminator(nn.Module):
    """The discriminator with the running values that balance it; all of it is checkpointed."""

    strength: Tensor
    """Factor on the weight of the adversarial loss."""
    reference: Tensor
    """Held-out PSNR before the discriminator took part."""
    passes: Tensor
    real: Tensor
    """Running mean of the scores of real images; `fake` that of reconstructions."""
    fake: Tensor

    def __init__(self, config: VqganConfig):
        super().__init__()
        self.network = PatchDiscriminator(config.discriminator_width, config.discriminator_layers)
        self.register_buffer("strength", torch.tensor(1.0))
        self.register_buffer("reference", torch.tensor(float("-inf")))
        self.register_buffer("passes", torch.tensor(0))
        self.register_buffer("real", torch.tensor(0.0))
        self.register_buffer("fake", torch.tensor(0.0))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 u v"]:
        return self.network(images)

    def back_off_if_worse(self, psnr: float, tolerance: float) -> None:
        """Halve the strength if held-out `psnr` is `tolerance` dB below what it was before."""
        if self.passes == 0:
            self.reference.fill_(psnr)
        elif psnr < self.reference - tolerance:
            self.strength.mul_(0.5)


class VqganObjective(HardReconstruction):
    """Pixel, perceptual, quantizer and adversarial losses, each under its name.

    features: a frozen network for the perceptual loss, such as the image tower of a CLIP; without
    one there is no perceptual loss.
    """

    runs_eagerly = "the adaptive weight differentiates at the last layer, inside what is compiled"

    def __init__(
        self, model: ImageTokenizer, config: VqganConfig, features: Features | None = None
    ):
        self.model = model
        self.config = config
        self.features = features
        self.discriminator = BalancedDiscriminator(config) if config.adversarial > 0 else None

    def to(self, device: torch.device) -> None:
        """Move the frozen network."""
        if isinstance(self.features, nn.Module):
            frozen(self.features, device)

    def losses(
        self,
        model: ImageTokenizer,
        batch: ImageBatch,
        progress: float,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """`loss`, `reconstruction`, `commitment`, and where they take part `codebook`,
        `perceptual`, `adversarial` and `adversarial_weight`.
        """
        config, images = self.config, batch.images
        output = model(images)
        decoded = plain_pixels(self.model, output.maps)
        weights = foreground_weights(images, config.foreground)
        errors = pixel_errors(decoded - images, config.pixel_loss)
        losses = {"reconstruction": (errors * weights).mean()}
        faithful = losses["reconstruction"]
        if self.features is not None and config.perceptual > 0:
            losses["perceptual"] = perceptual_distance(self.features, decoded, images)
            faithful = faithful + config.perceptual * losses["perceptual"]
        codes = rearrange(output.codes, "b (h w) -> b h w", h=self.model.grid)
        quantizer = self.model.quantizer
        assert isinstance(quantizer, VectorQuantizer)
        losses |= quantizer.losses(output.features, codes)
        loss = faithful + config.commitment * losses["commitment"]
        if "codebook" in losses:
            loss = loss + losses["codebook"]
        if self._discriminator_begun(progress):
            assert self.discriminator is not None
            losses["adversarial"] = -self.discriminator(decoded).mean()
            weight = config.adversarial * self.discriminator.strength
            if config.adversarial_balance == "adaptive":
                assert isinstance(self.model.decoder, Decoder)
                last = self.model.decoder.last_weight
                weight = weight * adaptive_weight(faithful, losses["adversarial"], last)
            losses["adversarial_weight"] = weight
            loss = loss + weight * losses["adversarial"]
        return {"loss": loss} | losses

    def discriminator_losses(
        self,
        discriminator: BalancedDiscriminator,
        model: ImageTokenizer,
        batch: ImageBatch,
        progress: float,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """`loss`, `hinge`, `regularizer`, mean scores `real` and `fake`; empty before its start."""
        if not self._discriminator_begun(progress):
            return {}
        discriminator.passes += 1
        with torch.no_grad():
            latents = self.model.embed(self.model.encode(batch.images))
            decoded = plain_pixels(self.model, self.model.decoder(latents))
        needs_slope = self.config.regularizer == "r1"
        images = batch.images.detach().requires_grad_(needs_slope)
        real, fake = discriminator(images), discriminator(decoded)
        hinge = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
        match self.config.regularizer:
            case "lecam":
                regularizer = lecam(discriminator, real, fake)
            case "r1":
                regularizer = gradient_penalty(real, images)
            case "none":
                regularizer = torch.zeros_like(hinge)
        return {
            "loss": hinge + self.config.regularization * regularizer,
            "hinge": hinge,
            "regularizer": regularizer,
            "real": real.mean(),
            "fake": fake.mean(),
        }

    @torch.no_grad()
    def evaluate(self, model: ImageTokenizer, images: Float[Tensor, "b 3 h w"]) -> dict[str, float]:
        """The usual; the discriminator backs off if it made the PSNR worse."""
        report = super().evaluate(model, images)
        if self.discriminator is not None:
            self.discriminator.back_off_if_worse(report["hard_psnr"], self.config.back_off)
            report["adversarial_strength"] = self.discriminator.strength.item()
        return report

    def _discriminator_begun(self, progress: float) -> bool:
        return self.discriminator is not None and progress >= self.config.adversarial_start


def adaptive_weight(
    faithful: Float[Tensor, ""], adversarial: Float[Tensor, ""], last: Tensor
) -> Float[Tensor, ""]:
    """‖∇ faithful‖ / (‖∇ adversarial‖ + 1e-4) at the decoder's last weights (equation 7)."""
    towards = torch.autograd.grad(faithful, last, retain_graph=True)[0].norm()
    against = torch.autograd.grad(adversarial, last, retain_graph=True)[0].norm()
    return (towards / (against + 1e-4)).clamp(0, 1e4).detach()


def perceptual_distance(
    features: Features, decoded: Float[Tensor, "b 3 h w"], images: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, ""]:
    """Squared distance of feature maps of unit channels, averaged over places, summed over maps."""
    with torch.no_grad():
        wanted = _maps(features(images))
    pairs = zip(_maps(features(decoded)), wanted, strict=True)
    distances = [
        (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(dim=1).mean() for a, b in pairs
    ]
    return torch.stack(distances).sum()


def lecam(
    discriminator: BalancedDiscriminator, real: Tensor, fake: Tensor, decay: float = 0.99
) -> Float[Tensor, ""]:
    """LeCam regularization (Tseng et al. 2021, arXiv 2104.03310).

    Pulls the scores of real images to the running mean of the fake ones, and the reverse.
    """
    with torch.no_grad():
        discriminator.real.lerp_(real.mean(), 1 - decay)
        discriminator.fake.lerp_(fake.mean(), 1 - decay)
    to_fake = (real - discriminator.fake.clone()).square().mean()
    return to_fake + (discriminator.real.clone() - fake).square().mean()


def gradient_penalty(real: Tensor, images: Tensor) -> Float[Tensor, ""]:
    """R1: half the squared gradient of the scores at real images (arXiv 1801.04406)."""
    slope = torch.autograd.grad(real.mean(dim=(1, 2, 3)).sum(), images, create_graph=True)[0]
    return 0.5 * slope.square().sum(dim=(1, 2, 3)).mean()


def _maps(features: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [features] if isinstance(features, Tensor) else features

"""VQGAN's discriminator and its losses (Esser et al. 2021, arXiv 2012.09841)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dalle_mini_impl.models.tokenizers.configs import AdversarialConfig
from dalle_mini_impl.models.tokenizers.discriminator import PatchDiscriminator


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

    def __init__(self, config: AdversarialConfig):
        super().__init__()
        self.network = PatchDiscriminator(config.width, config.layers)
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


def discriminator_losses(
    discriminator: BalancedDiscriminator,
    images: Float[Tensor, "b 3 h w"],
    decoded: Float[Tensor, "b 3 h w"],
    config: AdversarialConfig,
) -> dict[str, Tensor]:
    """`loss`, `hinge`, `regularizer`, and the mean scores `real` and `fake`."""
    discriminator.passes += 1
    images = images.detach().requires_grad_(config.regularizer == "r1")
    real, fake = discriminator(images), discriminator(decoded)
    hinge = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    match config.regularizer:
        case "lecam":
            regularizer = lecam(discriminator, real, fake)
        case "r1":
            regularizer = gradient_penalty(real, images)
        case "none":
            regularizer = torch.zeros_like(hinge)
    return {
        "loss": hinge + config.regularization * regularizer,
        "hinge": hinge,
        "regularizer": regularizer,
        "real": real.mean(),
        "fake": fake.mean(),
    }


def adaptive_weight(
    faithful: Float[Tensor, ""], adversarial: Float[Tensor, ""], last: Tensor
) -> Float[Tensor, ""]:
    """‖∇ faithful‖ / (‖∇ adversarial‖ + 1e-4) at the decoder's last weights (equation 7)."""
    towards = torch.autograd.grad(faithful, last, retain_graph=True)[0].norm()
    against = torch.autograd.grad(adversarial, last, retain_graph=True)[0].norm()
    return (towards / (against + 1e-4)).clamp(0, 1e4).detach()


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

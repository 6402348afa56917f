"""The image tokenizers' objectives: named losses, and how good the hard reconstruction is."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dalle_mini_impl.data.batches import ImageBatch
from dalle_mini_impl.data.codes import factor_usage
from dalle_mini_impl.models.tokenizers.image_tokenizer import DvaeConfig, FsqConfig, ImageTokenizer
from dalle_mini_impl.models.tokenizers.pixels import LogitLaplacePixels, PlainPixels
from dalle_mini_impl.models.tokenizers.quantizers import (
    FiniteScalarQuantizer,
    GumbelQuantizer,
    ProductQuantizer,
    gumbel_noise,
)
from dalle_mini_impl.training.schedules import cosine


class HardReconstruction:
    """What all objectives of image tokenizers show of them: the hard reconstruction."""

    @torch.no_grad()
    def evaluate(self, model: ImageTokenizer, images: Float[Tensor, "b 3 h w"]) -> dict[str, float]:
        """`hard_report`."""
        return hard_report(model, images)

    def preview(
        self, model: ImageTokenizer, images: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "c 3 h w"]:
        """Each original followed by its hard reconstruction."""
        return beside_reconstructions(model, images)


class DvaeObjective(HardReconstruction):
    """DALL·E's evidence lower bound (arXiv 2102.12092, appendix A.2), averaged per pixel value.

    The bound is a sum over the image: the paper divides it by its number of values, so the
    divergence, averaged over positions here, keeps its proportion with β / (3·downsampling²).
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
        per position); `temperature` and `kl_weight` of this moment.
        """
        images = batch.images
        weight, temperature = self.kl_weight(progress), self.temperature(progress)
        noise = gumbel_noise(self._logits_like(images), generator)
        output = model(images, noise, noise.new_tensor(temperature))
        pixels = self.model.pixels
        assert isinstance(pixels, LogitLaplacePixels)
        likelihood = pixels.negative_log_likelihood(output.maps, images)
        weights = foreground_weights(images, self.config.foreground)
        # A sure pixel pulls by 1/b on its mean: left alone, plain areas drown the objects.
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
    def evaluate(
        self, model: ImageTokenizer, images: Float[Tensor, "b 3 h w"], progress: float = 1.0
    ) -> dict[str, float]:
        """`hard_report`, and `soft_psnr` of what training sees at `progress` (seeded noise)."""
        generator = torch.Generator(images.device).manual_seed(0)
        noise = gumbel_noise(self._logits_like(images), generator)
        output = model(images, noise, noise.new_tensor(self.temperature(progress)))
        soft = psnr(model.pixels.images(output.maps), images)
        return hard_report(model, images) | {"soft_psnr": soft}

    def _logits_like(self, images: Tensor) -> Float[Tensor, "b k g g"]:
        grid = self.model.grid
        return images.new_empty(len(images), self.model.code_count, grid, grid)


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
        output = model(batch.images)
        pixels = self.model.pixels
        assert isinstance(pixels, PlainPixels)
        difference = pixels.unclamped(output.maps) - batch.images
        errors = pixel_errors(difference, self.config.pixel_loss)
        weights = foreground_weights(batch.images, self.config.foreground)
        reconstruction = (errors * weights).mean()
        return {"loss": reconstruction, "reconstruction": reconstruction}


def divergence_from_uniform(logits: Float[Tensor, "b k h w"]) -> Float[Tensor, ""]:
    """KL of the categorical from the uniform prior, in nats, averaged over all positions.

    From the raw logits: the temperature belongs to the relaxation, not to the posterior.
    """
    log_shares = logits.float().log_softmax(dim=1)
    kl = (log_shares.exp() * log_shares).sum(dim=1) + math.log(logits.shape[1])
    return kl.mean()


def pixel_errors(difference: Tensor, kind: str) -> Tensor:
    """The distance of every value: "l1", "l2" or "charbonnier" (L1, rounded within 0.01)."""
    match kind:
        case "l1":
            return difference.abs()
        case "l2":
            return difference.square()
        case "charbonnier":
            return (difference.square() + 1e-4).sqrt() - 1e-2
    raise ValueError(f"pixel_loss is {kind!r}; choose l1, l2 or charbonnier")


def foreground_weights(
    images: Float[Tensor, "b 3 h w"], strength: float
) -> Float[Tensor, "b 1 h w"]:
    """Weights with mean 1 per image that grow with distance from the mean color of its border.

    Outlines and small objects are few pixels: an even loss learns them last.
    """
    border = torch.cat(
        [images[..., 0, :], images[..., -1, :], images[..., :, 0], images[..., :, -1]], dim=-1
    )
    distance = (images - border.mean(dim=-1)[..., None, None]).abs().mean(dim=1, keepdim=True)
    # Wider by two pixels, so that both sides of an outline count.
    distance = F.max_pool2d(distance, 5, stride=1, padding=2)
    weights = 1 + strength * distance / distance.amax(dim=(2, 3), keepdim=True).clamp_min(1e-3)
    return weights / weights.mean(dim=(2, 3), keepdim=True)


def psnr(reconstructed: Float[Tensor, "b 3 h w"], images: Float[Tensor, "b 3 h w"]) -> float:
    """Peak signal-to-noise ratio in dB, the mean over images; at most 100."""
    error = (reconstructed - images).square().mean(dim=(1, 2, 3)).clamp_min(1e-10)
    return (-10 * error.log10()).mean().item()


def code_statistics(codes: Int[Tensor, "b n"], factors: tuple[int, ...]) -> dict[str, float]:
    """`code_usage`, the share of codes that occur, and `perplexity`, exp of their entropy.

    Where codes have several factors, the usage is the mean over the factors of each one's own.
    """
    counts = torch.bincount(codes.flatten(), minlength=math.prod(factors))
    entropy = torch.special.entr(counts / codes.numel()).sum()
    return {
        "code_usage": factor_usage(counts.cpu().numpy(), factors),
        "perplexity": entropy.exp().item(),
    }


@torch.no_grad()
def hard_report(model: ImageTokenizer, images: Float[Tensor, "b 3 h w"]) -> dict[str, float]:
    """`hard_psnr` of what sampling will see, with `code_usage` and `perplexity`."""
    codes = model.encode(images)
    quality = psnr(model.decode(codes), images)
    return {"hard_psnr": quality} | code_statistics(codes, model.factors)


def collapse_warning(usage: float, perplexity: float, model: ImageTokenizer) -> str | None:
    """Advice if few codes carry the images; None if all is well.

    Measure on enough images: each code can only be seen if there are more positions than codes.
    Perplexity alone says little, since plain backgrounds repeat their codes in healthy codebooks.
    Finite scalars have no codebook to collapse: few codes in use only mean that fewer would do.
    """
    count = model.code_count
    use = f"{usage:.0%} of {count} codes in use, perplexity {perplexity:.0f}"
    if isinstance(model.quantizer, FiniteScalarQuantizer | ProductQuantizer):
        return f"{use}: image_tokenizer.levels could be fewer" if usage < 0.1 else None
    if usage >= 0.4 and perplexity >= 0.01 * count:
        return None
    return (
        f"the codebook is collapsing: {use}. For dvae raise image_tokenizer.kl_weight or keep the "
        f"temperature high for longer (image_tokenizer.annealing); or lower learning_rate, use "
        f"fewer codes, or choose image_tokenizer.type fsq, which has no codebook to collapse"
    )


@torch.no_grad()
def beside_reconstructions(
    model: ImageTokenizer, images: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, "c 3 h w"]:
    """Original, hard reconstruction, original, … for a sheet with an even number of columns."""
    pairs = torch.stack([images, model.decode(model.encode(images))], dim=1)
    return pairs.flatten(0, 1)

"""What the objectives of all image tokenizers share: pixel losses and measures of quality."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dalle_mini_impl.data.codes import factor_usage, perplexity
from dalle_mini_impl.images import psnr
from dalle_mini_impl.kernels.chunks import in_chunks
from dalle_mini_impl.kernels.largest_nearby import largest_nearby
from dalle_mini_impl.models.tokenizers.finite_scalar import FiniteScalarQuantizer
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer


class HardReconstruction:
    """Evaluation and previews of an image tokenizer, by what it makes of its own hard codes."""

    @torch.no_grad()
    def evaluate(self, model: ImageTokenizer, images: Float[Tensor, "b 3 h w"]) -> dict[str, float]:
        """`hard_psnr` of what sampling will see, with `code_usage` and `perplexity`."""
        codes, quality = self.hard_reconstructions(model, images)
        return {"hard_psnr": quality.mean().item()} | code_statistics(codes, model.factors)

    def hard_reconstructions(
        self, model: ImageTokenizer, images: Float[Tensor, "b 3 h w"]
    ) -> tuple[Int[Tensor, "b n"], Float[Tensor, "b"]]:
        """The codes, and the PSNR of what is decoded from them."""
        codes = in_chunks(model.encode, images)
        return codes, in_chunks(lambda c, own: psnr(model.decode(c), own), codes, images)

    @torch.no_grad()
    def preview(
        self, model: ImageTokenizer, images: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "c 3 h w"]:
        """Original, hard reconstruction, original, … for a sheet with an even number of columns."""
        decoded = in_chunks(lambda own: model.decode(model.encode(own)), images)
        pairs = torch.stack([images, decoded], dim=1)
        return pairs.flatten(0, 1)


def foreground_weights(
    images: Float[Tensor, "b 3 h w"], strength: float
) -> Float[Tensor, "b 1 h w"]:
    """Weights with mean 1 per image that grow with distance from the mean color of its border.

    Outlines and small objects have few pixels; an even loss would learn them last.
    """
    border = torch.cat(
        [images[..., 0, :], images[..., -1, :], images[..., :, 0], images[..., :, -1]], dim=-1
    )
    distance = (images - border.mean(dim=-1)[..., None, None]).abs().mean(dim=1, keepdim=True)
    # Widened by two pixels, so that both sides of an outline count.
    distance = largest_nearby(distance, 5)
    weights = 1 + strength * distance / distance.amax(dim=(2, 3), keepdim=True).clamp_min(1e-3)
    return weights / weights.mean(dim=(2, 3), keepdim=True)


def code_statistics(codes: Int[Tensor, "b n"], factors: tuple[int, ...]) -> dict[str, float]:
    """`code_usage`, the share of codes that occur, and their `perplexity`."""
    values, counts = np.unique(codes.cpu().numpy(), return_counts=True)
    return {"code_usage": factor_usage(values, factors), "perplexity": perplexity(counts)}


def collapse_warning(usage: float, perplexity: float, model: ImageTokenizer) -> str | None:
    """Advice if few codes are in use; None if all is well.

    Needs enough images: all codes can only occur where there are more positions than codes.
    Perplexity alone says little, since plain backgrounds repeat the same few codes.
    Finite scalars have no codebook to collapse: there, few codes in use only mean that fewer
    would be enough.
    """
    factors = " × ".join(map(str, model.factors))
    use = f"{usage:.0%} of {factors} codes in use, perplexity {perplexity:.0f}"
    if isinstance(model.quantizer.parts[0], FiniteScalarQuantizer):
        return f"{use}: image_tokenizer.quantizer.levels could be fewer" if usage < 0.1 else None
    if usage >= 0.4 and perplexity >= 0.01 * max(model.factors):
        return None
    return (
        f"the codebook is collapsing: {use}. With a categorical quantizer raise its "
        f"entropy_weight, with a vector quantizer its dead_code_threshold; or lower "
        f"learning_rate, use fewer codes, or choose image_tokenizer.preset fsq, which has no "
        f"codebook to collapse"
    )

"""The score of images by prompts: weighted spherical distances to texts and images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.retrieval.encoder import JointEncoder


@dataclass(frozen=True)
class WeightedPrompt:
    """What an image should resemble, or not resemble where the weight is negative."""

    target: str
    """A text, or the path of an image."""
    weight: float = 1.0


def parse_prompt(text: str) -> WeightedPrompt:
    """`TARGET:WEIGHT`, or TARGET alone for weight 1.

    What follows the last colon counts as a weight if it is a number: write "at 12:30:1" for a text
    that ends in one. ConfigError for a weight that is zero or not finite.
    """
    target, colon, number = text.rpartition(":")
    try:
        weight = float(number) if colon else 1.0
    except ValueError:
        colon = ""
    if not colon:
        return WeightedPrompt(text.strip())
    if not target.strip() or weight == 0 or not math.isfinite(weight):
        raise ConfigError(f"prompt {text!r}: write TEXT:WEIGHT with a weight that is not zero")
    return WeightedPrompt(target.strip(), weight)


class PromptScore:
    """Minus the mean distance to the targets, weighted: an image's score in [-π²/2, π²/2].

    Crowson et al. 2022, arXiv 2204.08583. Distances are spherical; a negative weight rewards
    distance. The weights' absolute values are scaled to sum to 1.
    """

    def __init__(
        self, clip: JointEncoder, targets: Float[Tensor, "p e"], weights: Float[Tensor, "p"]
    ):
        self.clip = clip
        self.targets = targets.detach()
        self.weights = (weights / weights.abs().sum()).to(targets)

    @classmethod
    def of(
        cls,
        clip: JointEncoder,
        texts: Sequence[WeightedPrompt],
        images: Sequence[tuple[Image.Image, float]] = (),
    ) -> "PromptScore":
        """The score of text prompts and of images with their weights."""
        if not (texts or images):
            raise ConfigError("give at least one text or image as a prompt")
        vectors = []
        if texts:
            vectors.append(clip.encode_texts([prompt.target for prompt in texts]))
        if images:
            vectors.append(clip.encode_images([image for image, _ in images]))
        weights = [prompt.weight for prompt in texts] + [weight for _, weight in images]
        return cls(clip, torch.cat(vectors), torch.tensor(weights, dtype=torch.float32))

    def __call__(self, pixels: Float[Tensor, "m 3 h w"]) -> Float[Tensor, "m"]:
        """Scores of images at the CLIP's size, differentiable."""
        seen = self.clip.embed_pixels(pixels.to(self.clip.device))
        return -(spherical_distance(seen, self.targets) @ self.weights)


def spherical_distance(
    left: Float[Tensor, "m e"], right: Float[Tensor, "p e"]
) -> Float[Tensor, "m p"]:
    """Half the squared angle between unit vectors: 0 for equal, π²/2 for opposite ones."""
    chord = (2 - 2 * left @ right.T).clamp(min=1e-7, max=4 - 1e-5).sqrt()
    # θ = 2 asin(chord / 2), so θ²/2 = 2 asin²(chord / 2).
    return 2 * torch.asin(chord / 2).square()

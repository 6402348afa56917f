"""Zero-shot classification: an image gets the label whose text it is closest to.

Radford et al. 2021, arXiv 2103.00020, section 3.1: the vectors of a label's templates are averaged
once, so many templates cost no more per image than one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.retrieval.encoder import JointEncoder

TEMPLATES = ("a picture of a {}",)


@dataclass(frozen=True)
class Classification:
    """A label for an image, with its probability."""

    label: str
    probability: float


class ZeroShotClassifier:
    """Probabilities of labels for images, from a CLIP that was not trained on them.

    templates: texts with {} or {label} as the placeholder. ConfigError for fewer than two
    labels, equal labels, or a template without a placeholder.
    """

    def __init__(
        self, clip: JointEncoder, labels: Sequence[str], templates: Sequence[str] = TEMPLATES
    ):
        if len(labels) < 2:
            raise ConfigError(f"labels {list(labels)}: give two or more to choose between")
        repeated = sorted({label for label in labels if labels.count(label) > 1})
        if repeated:
            raise ConfigError(f"labels: {', '.join(repeated)} given more than once")
        self.clip = clip
        self.labels = tuple(labels)
        texts = [fill(template, label) for label in labels for template in templates]
        if not texts:
            raise ConfigError('templates: give at least one, such as "a picture of a {}"')
        vectors = rearrange(clip.encode_texts(texts), "(l t) e -> l t e", l=len(labels))
        self.vectors = F.normalize(reduce(vectors, "l t e -> l e", "mean"), dim=-1)

    @torch.no_grad()
    def probabilities(
        self, images: Sequence[Image.Image] | Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b l"]:
        """Probability of each label for each image; rows sum to 1."""
        similarity = self.clip.encode_images(images) @ self.vectors.T
        return (self.clip.logit_scale * similarity).softmax(dim=-1)

    def classify(
        self, images: Sequence[Image.Image] | Float[Tensor, "b 3 h w"], top: int = 5
    ) -> list[list[Classification]]:
        """The `top` most likely labels of each image, most likely first."""
        best = self.probabilities(images).topk(min(top, len(self.labels)), dim=-1)
        return [
            [Classification(self.labels[i], p) for i, p in zip(row, values, strict=True)]
            for row, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


def fill(template: str, label: str) -> str:
    """The template with the label filled in; other braces stay as they are."""
    if "{}" not in template and "{label}" not in template:
        raise ConfigError(f'template {template!r}: no placeholder for the label, as in "a {{}}"')
    return template.replace("{label}", label).replace("{}", label)

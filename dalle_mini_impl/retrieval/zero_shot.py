"""Classification by prompts: a label is the text that an image is closest to.

Radford et al. 2021, arXiv 2103.00020, section 3.1: the templates of a label are averaged as
vectors, so that a hundred templates cost no more than one once the classifier is made.
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
class Prediction:
    """One label for an image."""

    label: str
    probability: float


class ZeroShotClassifier:
    """Probabilities of labels for images, from a CLIP that never saw the labels as classes.

    templates: texts with {} or {label} where the label goes. ConfigError for fewer than two
    labels, equal labels, or a template without a place for the label.
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
    ) -> list[list[Prediction]]:
        """The likeliest `top` labels of each image, likeliest first."""
        best = self.probabilities(images).topk(min(top, len(self.labels)), dim=-1)
        return [
            [Prediction(self.labels[i], p) for i, p in zip(row, values, strict=True)]
            for row, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


def fill(template: str, label: str) -> str:
    """The template with the label in its place; other braces stay as they are."""
    if "{}" not in template and "{label}" not in template:
        raise ConfigError(f'template {template!r}: no place for the label, as in "a {{}}"')
    return template.replace("{label}", label).replace("{}", label)

"""The transformer's objective: a caption's tokens and a picture's codes, each kind weighed."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dalle_mini_impl.data.batches import CodeBatch
from dalle_mini_impl.models.dalle import Dalle, TransformerConfig


def real_tokens(captions: Int[Tensor, "b t"]) -> Float[Tensor, "b t"]:
    """1 for a caption's tokens and the pad that ends it, 0 for the predictable pads after it."""
    pads_so_far = (captions == 0).cumsum(dim=1)
    return (pads_so_far <= 1).float()


def text_loss(
    logits: Float[Tensor, "b t v"], captions: Int[Tensor, "b t"], weights: Float[Tensor, "b t"]
) -> Float[Tensor, ""]:
    """Cross-entropy in nats per weighed token."""
    each = F.cross_entropy(logits.float().transpose(1, 2), captions, reduction="none")
    return (each * weights).sum() / weights.sum().clamp(min=1)


class DalleObjective:
    """Cross-entropy of text and codes, normalised per kind and summed by weight.

    1/8 text + 7/8 image in the paper (arXiv 2102.12092, §2.2). Captions dropped for guidance
    become the null caption and teach no text.
    """

    def __init__(self, model: Dalle, config: TransformerConfig):
        self.model = model
        self.config = config

    def losses(
        self,
        model: torch.nn.Module,
        batch: CodeBatch,
        progress: float,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """`loss`, and `text` and `image` in nats per token."""
        chance = torch.rand(len(batch.codes), generator=generator, device=batch.codes.device)
        dropped = chance < self.config.caption_dropout
        captions = batch.captions.masked_fill(dropped[:, None], 0)
        logits = model(captions, batch.codes)
        weights = real_tokens(captions) * (~dropped)[:, None]
        text = text_loss(logits.text, captions, weights)
        image = F.cross_entropy(logits.image.float().transpose(1, 2), batch.codes)
        share = self.config.text_weight
        return {"loss": share * text + (1 - share) * image, "text": text, "image": image}

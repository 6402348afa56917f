"""The transformer's objective: cross-entropy of caption tokens and of image codes."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dalle_mini_impl.data.batches import CodeBatch
from dalle_mini_impl.kernels.cross_entropy import mean_cross_entropy, weighted_cross_entropy
from dalle_mini_impl.models.config import TransformerConfig
from dalle_mini_impl.models.dalle import Dalle


def real_tokens(captions: Int[Tensor, "b t"]) -> Float[Tensor, "b t"]:
    """1 for a caption's tokens and the pad that ends it, 0 for the predictable pads after it."""
    pads_so_far = (captions == 0).cumsum(dim=1)
    return (pads_so_far <= 1).float()


@dataclass(frozen=True)
class PreparedBatch:
    """Codes with captions of which some were dropped: what is predicted, and what is read."""

    codes: Int[Tensor, "b n"]
    captions: Int[Tensor, "b t"]
    weights: Float[Tensor, "b t"]
    """Of each caption token's loss. In the whole batch they add up to its number of examples, so
    the mean over micro-batches is the mean over the batch's tokens."""
    read_codes: Int[Tensor, "b n"] | None = None
    """The codes with some replaced; None if none are."""
    read_captions: Int[Tensor, "b t"] | None = None
    """The captions without some tokens; None if none are dropped."""


def image_loss(
    model: Dalle,
    hidden: Float[Tensor, "b n c"],
    codes: Int[Tensor, "b n"],
    rows: Float[Tensor, "b"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Nats per code from the trunk's output; rows: the weight of each image, if not equal."""
    weights = None if rows is None else rows[:, None].expand(codes.shape)
    predictions = model.image_head.predictions(hidden, codes)
    losses = [mean_cross_entropy(*each, weights, label_smoothing) for each in predictions]
    return torch.stack(losses).sum()


def replaced(
    codes: Int[Tensor, "b n"], rate: float, generator: torch.Generator | None = None
) -> Int[Tensor, "b n"]:
    """The codes with a share `rate` replaced by random codes of the batch.

    Those are as frequent as they are in images, like the wrong codes that sampling may draw.
    """
    chance = torch.rand(codes.shape, generator=generator, device=codes.device)
    others = torch.randint(codes.numel(), codes.shape, generator=generator, device=codes.device)
    return torch.where(chance < rate, codes.flatten()[others], codes)


class DalleObjective:
    """The mean cross-entropy of text and that of codes, weighted and added.

    1/8 text + 7/8 image in the paper (arXiv 2102.12092, §2.2). Captions dropped for guidance
    become the null caption and teach no text. Held-out losses are those of whole captions and
    codes, without label smoothing.
    """

    held_out_passes = 1.5
    """Each image with its caption, a quarter of them also with another's and with none."""

    def __init__(self, model: Dalle, config: TransformerConfig):
        self.model = model
        self.config = config

    def prepare(self, batch: CodeBatch, generator: torch.Generator | None = None) -> PreparedBatch:
        """Drop captions at random, weigh the tokens of the others, and alter what is read."""
        chance = torch.rand(len(batch.codes), generator=generator, device=batch.codes.device)
        dropped = chance < self.config.caption_dropout
        captions = batch.captions.masked_fill(dropped[:, None], 0)
        counted = real_tokens(captions) * (~dropped)[:, None]
        weights = counted * (len(counted) / counted.sum().clamp(min=1))
        read_codes = read_captions = None
        if rate := self.config.code_replacement:
            read_codes = replaced(batch.codes, rate, generator)
        if rate := self.config.caption_token_dropout:
            chance = torch.rand(captions.shape, generator=generator, device=captions.device)
            read_captions = captions.masked_fill(chance < rate, 0)
        return PreparedBatch(batch.codes, captions, weights, read_codes, read_captions)

    def losses(
        self,
        model: Dalle,
        batch: PreparedBatch,
        progress: float,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """`loss`, and `text` and `image` in nats per token, `image` with label smoothing."""
        trunk = model.trunk(
            batch.captions if batch.read_captions is None else batch.read_captions,
            batch.codes if batch.read_codes is None else batch.read_codes,
        )
        shares = batch.weights / len(batch.captions)
        head = model.text_head.weight
        text = weighted_cross_entropy(trunk.text, head, batch.captions, shares)
        smoothing = self.config.label_smoothing
        image = image_loss(model, trunk.image, batch.codes, label_smoothing=smoothing)
        share = self.config.text_weight
        return {"loss": share * text + (1 - share) * image, "text": text, "image": image}

    def held_out_losses(self, model: Dalle, batch: CodeBatch) -> dict[str, Tensor]:
        """`image` and `text` as in training, then `image` with another image's caption and none.

        The last two are measured on the first quarter of the batch, and their difference from the
        true caption there is added to `image`: that varies less than two means of different images.
        """
        captions, codes = batch.captions, batch.codes
        trunk = model.trunk(captions, codes)
        text = mean_cross_entropy(
            trunk.text, model.text_head.weight, captions, real_tokens(captions)
        )
        image = image_loss(model, trunk.image, codes)
        few = slice(0, math.ceil(len(codes) / 4))
        others = captions.roll(1, dims=0)
        losses = {"image": image, "text": text}
        for name, given in (("another_caption", others), ("no_caption", 0 * captions)):
            differs = (given[few] != captions[few]).any(dim=1).float()
            hidden = model.trunk(given[few], codes[few]).image
            true = image_loss(model, trunk.image[few], codes[few], differs)
            losses[name] = image + image_loss(model, hidden, codes[few], differs) - true
        return losses

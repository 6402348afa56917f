"""The stage that trains CLIP, which ranks candidates."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dalle_mini_impl.data.negatives import hard_negatives
from dalle_mini_impl.experiment.models import new_clip
from dalle_mini_impl.runs.loading import frozen, load_image_tokenizer
from dalle_mini_impl.training.context import StageContext
from dalle_mini_impl.training.held_out import held_out_images
from dalle_mini_impl.training.loop import train
from dalle_mini_impl.training.objectives.clip_in_parts import clip_objective
from dalle_mini_impl.training.stage_files import StageFiles


def train_clip(context: StageContext) -> None:
    """Train CLIP on captions with images and, in part, with their reconstructions.

    Reconstructions are what it will rank. Where the configuration wants none of them
    (clip.reconstructions 0), CLIP needs no image tokenizer and fits any.
    """
    config, run = context.experiment.clip, context.run
    autoencode, made_from = None, {}
    if config.reconstructions > 0:
        made_from["image_tokenizer"] = run.weights_hash("image_tokenizer")
        autoencode = _autoencoder(context)
    training = config.training
    all_alike = len(set(context.store.captions)) == 1
    if all_alike:
        context.say(
            f"WARNING: every image has the caption {context.store.captions[0][0]!r}: CLIP has "
            "nothing to distinguish and stops after one step; its ranking is worth nothing"
        )
        training = training.model_copy(update={"steps": 1})
    store, held_out = context.store, context.experiment.data.held_out_captions
    negative = hard_negatives(store.captions, store.attributes, "train", held_out)
    batches = context.image_batches(
        training, dropout=True, negative=negative, negatives=config.hard_negatives
    )
    torch.manual_seed(config.training.seed)
    model = new_clip(context.experiment, context.vocabulary.vocabulary_size)
    train(
        clip_objective(model, config, autoencode),
        batches,
        training,
        StageFiles(run, "clip", made_from),
        context.resume,
        held_out=None if all_alike else held_out_images(context, training),
    )
    if not all_alike:
        _warn_if_clip_learned_nothing(context, training.batch_size)


def _autoencoder(context: StageContext) -> Callable[[Tensor], Tensor]:
    """Images to their reconstructions by the run's image tokenizer."""
    tokenizer = frozen(load_image_tokenizer(context.run), context.device)
    return lambda images: tokenizer.decode(tokenizer.encode(images))


def _warn_if_clip_learned_nothing(context: StageContext, batch_size: int) -> None:
    losses = [
        record["contrastive"]
        for record in context.run.metrics()
        if record["stage"] == "clip" and record.get("contrastive") is not None
    ]
    chance = float(np.log(batch_size * context.processes.num_processes))
    if losses and context.experiment.clip.loss == "infonce" and losses[-1] > 0.95 * chance:
        context.say(
            f"WARNING: CLIP's loss ends at {losses[-1]:.2f}, about ln(batch) = {chance:.2f}: it "
            "cannot distinguish captions. Train it longer, or with a lower learning rate, or "
            "check with `dalle data check` that captions belong to their images"
        )

"""The stages that train the caption vocabulary and the image tokenizer."""

import torch

from dalle_mini_impl.captions import CaptionTokenizer
from dalle_mini_impl.experiment.models import new_image_tokenizer
from dalle_mini_impl.shipped.commands import command
from dalle_mini_impl.training.context import StageContext
from dalle_mini_impl.training.held_out import held_out_images
from dalle_mini_impl.training.loop import train
from dalle_mini_impl.training.objectives.image_tokenizer import ImageTokenizerObjective
from dalle_mini_impl.training.perceptual_features import perceptual_features
from dalle_mini_impl.training.previews import reconstruction_previews
from dalle_mini_impl.training.stage_files import StageFiles


def train_captions(context: StageContext) -> None:
    """Train or copy the vocabulary; report captions that it cuts."""
    texts = [text for captions in context.store.captions for text in captions]
    if context.processes.is_main_process:
        context.run.save_captions(CaptionTokenizer.from_config(context.experiment.captions, texts))
    context.processes.wait_for_everyone()
    different = sorted(set(texts))
    cut = context.vocabulary.count_truncated(different)
    context.say(
        f"captions: {context.vocabulary.vocabulary_size:,} tokens; {cut:,} of {len(different):,} "
        f"different captions are longer than {context.vocabulary.context} tokens and lose their end"
    )


def train_image_tokenizer(context: StageContext) -> None:
    """Train the image tokenizer on the images."""
    config, run = context.experiment.image_tokenizer, context.run
    before = run.weights_hash("image_tokenizer") if run.has_weights("image_tokenizer") else None
    torch.manual_seed(config.training.seed)
    model = new_image_tokenizer(context.experiment)
    objective = ImageTokenizerObjective(model, config, perceptual_features(context, config))
    validation = context.validation
    train(
        objective,
        context.image_batches(config.training, dropout=False),
        config.training,
        StageFiles(run, "image_tokenizer"),
        context.resume,
        preview=reconstruction_previews(
            objective,
            run,
            validation if len(validation) else context.store,
            context.experiment.data,
            context.device,
        ),
        held_out=held_out_images(context, config.training),
    )
    outdated = [name for name in ("dalle", "clip") if run.has_weights(name)]
    if outdated and before != run.weights_hash("image_tokenizer"):
        context.say(
            f"WARNING: {' and '.join(outdated)} were trained with other image codes and no longer "
            f"fit; `{command('train')} --run {run.path}` trains them again"
        )

"""The stage that trains the transformer on captions and codes."""

import torch

from dalle_mini_impl.data.batches import CodeBatches
from dalle_mini_impl.experiment.models import new_dalle
from dalle_mini_impl.models.code_head import start_from_codebooks
from dalle_mini_impl.runs.loading import frozen, load_image_tokenizer
from dalle_mini_impl.training.code_stage import codes_of
from dalle_mini_impl.training.context import StageContext
from dalle_mini_impl.training.held_out import held_out_codes
from dalle_mini_impl.training.loop import train
from dalle_mini_impl.training.objectives.dalle import DalleObjective
from dalle_mini_impl.training.previews import sample_previews
from dalle_mini_impl.training.stage_files import StageFiles


def train_transformer(context: StageContext) -> None:
    """Train the transformer on captions and cached codes."""
    config, run = context.experiment.transformer, context.run
    tokenizer = frozen(load_image_tokenizer(run), context.device)
    batches = CodeBatches(
        codes_of(context, tokenizer),
        context.table(dropout=True),
        context.order(config.training),
    )
    torch.manual_seed(config.training.seed)
    vocabulary = context.vocabulary
    model = new_dalle(context.experiment, vocabulary.vocabulary_size, tokenizer)
    for per_code in (model.embedding.code, model.embedding.above, model.image_head):
        if per_code is not None:
            start_from_codebooks(per_code, tokenizer.quantizer.codebooks())
    made_from = {"image_tokenizer": run.weights_hash("image_tokenizer")}
    train(
        DalleObjective(model, config),
        batches,
        config.training,
        StageFiles(run, "transformer", made_from),
        context.resume,
        preview=sample_previews(run, vocabulary, tokenizer, context.store, context.device),
        held_out=held_out_codes(context, config.training, tokenizer),
    )

"""The features that the perceptual loss compares: trained first, a CLIP's, or the user's."""

import torch

from dalle_mini_impl.config import ConfigError, load_function
from dalle_mini_impl.models.tokenizers.configs import ImageTokenizerConfig
from dalle_mini_impl.models.tokenizers.perceptual import PerceptualNetwork
from dalle_mini_impl.runs.loading import frozen, load_clip
from dalle_mini_impl.training.context import StageContext
from dalle_mini_impl.training.loop import train
from dalle_mini_impl.training.objectives.feature_distance import Features
from dalle_mini_impl.training.objectives.perceptual import PerceptualObjective
from dalle_mini_impl.training.stage_files import StageFiles


def perceptual_features(context: StageContext, config: ImageTokenizerConfig) -> Features | None:
    """The features of the perceptual loss, if the configuration asks for one.

    A small network is trained for them where the run has none yet.
    """
    own = config.objective.perceptual
    if own.weight == 0:
        return None
    if own.features == "clip":
        if not context.run.has_weights("clip"):
            raise ConfigError(
                f"image_tokenizer.objective.perceptual.features is clip, but {context.run.path} "
                "has no CLIP yet: train with features: trained first, or `--stage clip` before "
                "this stage"
            )
        tower = load_clip(context.run, context.vocabulary, ranks=False).image
        tower = frozen(tower, context.device)
        context.say("image_tokenizer: perceptual loss over features of the run's CLIP")
        return tower.features
    if own.features != "trained":
        context.say(f"image_tokenizer: perceptual loss over {own.features}")
        return load_function(own.features, "image_tokenizer.objective.perceptual.features")
    training = own.network.training
    torch.manual_seed(training.seed)
    network = PerceptualNetwork(own.network)
    if not context.run.has_weights("perceptual") or not context.resume:
        batches = context.image_batches(training, dropout=False)
        context.say("image_tokenizer: first a small network for its perceptual loss")
        files = StageFiles(context.run, "perceptual")
        train(PerceptualObjective(network), batches, training, files, context.resume)
    context.run.load_weights("perceptual", network)
    context.say("image_tokenizer: perceptual loss over features of perceptual.safetensors")
    return frozen(network, context.device)

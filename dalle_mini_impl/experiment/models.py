"""The models that an experiment describes, with untrained weights."""

from dalle_mini_impl.experiment.sections import Experiment
from dalle_mini_impl.models.clip import Clip
from dalle_mini_impl.models.dalle import Dalle
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer, build_image_tokenizer


def new_image_tokenizer(experiment: Experiment) -> ImageTokenizer:
    """The image tokenizer; ConfigError if its grid does not fit the images."""
    return build_image_tokenizer(experiment.image_tokenizer, experiment.data.image_size)


def new_dalle(experiment: Experiment, vocabulary_size: int, tokenizer: ImageTokenizer) -> Dalle:
    """The transformer over captions and the codes of `tokenizer`."""
    return Dalle(
        experiment.transformer,
        vocabulary_size,
        experiment.captions.context,
        tokenizer.code_count,
        tokenizer.grid,
        tokenizer.factors,
    )


def new_clip(experiment: Experiment, vocabulary_size: int) -> Clip:
    """The CLIP of captions and images."""
    size = experiment.data.image_size
    return Clip(experiment.clip, vocabulary_size, experiment.captions.context, size)

"""A run's trained models, built from its configuration and filled from its weights."""

import copy
from typing import NamedTuple, TypeVar

import torch
from torch import nn

from dalle_mini_impl.captions import CaptionTokenizer
from dalle_mini_impl.data.codes import CodeCache
from dalle_mini_impl.experiment.models import new_clip, new_dalle, new_image_tokenizer
from dalle_mini_impl.models.clip import Clip
from dalle_mini_impl.models.dalle import Dalle
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.weights import RunError
from dalle_mini_impl.sampling.config import SamplingConfig
from dalle_mini_impl.sampling.record import Origin
from dalle_mini_impl.sampling.training_codes import TrainingCodes
from dalle_mini_impl.shipped.commands import command
from dalle_mini_impl.version import package_version

Model = TypeVar("Model", bound=nn.Module)


def frozen(model: Model, device: str | torch.device | None = None) -> Model:
    """The model ready for inference on `device` (None: where it is): eval mode, no gradients.

    A model that was made under `torch.inference_mode` is copied, as its weights have no version and
    could not be compared with those that a decoding step was compiled for.
    """
    with torch.inference_mode(False):
        if any(weight.is_inference() for weight in model.parameters()):
            model = copy.deepcopy(model)
        return model.to(device).eval().requires_grad_(False)


def load_image_tokenizer(run: RunFolder) -> ImageTokenizer:
    """The run's image tokenizer with its trained weights."""
    model = new_image_tokenizer(run.experiment)
    run.load_weights("image_tokenizer", model)
    return model


def load_dalle(
    run: RunFolder, captions: CaptionTokenizer, image_tokenizer: ImageTokenizer
) -> Dalle:
    """The run's transformer with its trained weights."""
    model = new_dalle(run.experiment, captions.vocabulary_size, image_tokenizer)
    _refuse_other_codes(run, "dalle", "transformer")
    run.load_weights("dalle", model)
    return model


def load_clip(run: RunFolder, captions: CaptionTokenizer, ranks: bool = True) -> Clip:
    """The run's CLIP with its trained weights.

    ranks: it will judge images that the run's image tokenizer decodes, so RunError if it was
    trained with another one.
    """
    model = new_clip(run.experiment, captions.vocabulary_size)
    if ranks:
        _refuse_other_codes(run, "clip", "clip")
    run.load_weights("clip", model)
    return model


class Models(NamedTuple):
    """All that samples images, with the settings of the run."""

    captions: CaptionTokenizer
    image_tokenizer: ImageTokenizer
    dalle: Dalle
    clip: Clip | None
    sampling: SamplingConfig


def load_models(run: RunFolder) -> Models:
    """The run's models with their trained weights; the CLIP only where there is one."""
    captions, image_tokenizer = run.captions(), load_image_tokenizer(run)
    return Models(
        captions,
        image_tokenizer,
        load_dalle(run, captions, image_tokenizer),
        load_clip(run, captions) if run.has_weights("clip") else None,
        run.experiment.sampling,
    )


def origin_of(run: RunFolder) -> Origin:
    """What records of sampled images say of the run's models."""
    return Origin(
        run=run.name,
        image_tokenizer=run.weights_hash("image_tokenizer"),
        dalle=run.weights_hash("dalle"),
        clip=run.weights_hash("clip") if run.has_weights("clip") else None,
        version=package_version(),
    )


def training_codes_of(run: RunFolder) -> TrainingCodes | None:
    """The codes of the run's training images; None where the cache is gone, or of other codes."""
    folder = run.path / "cache" / "codes"
    cache = CodeCache.of_weights(folder, run.weights_hash("image_tokenizer"))
    return None if cache is None else TrainingCodes(cache.codes)


def _refuse_other_codes(run: RunFolder, name: str, stage: str) -> None:
    if run.has_weights(name) and not run.fits_image_tokenizer(name):
        raise RunError(
            f"{run.weights_path(name)}: trained with another image tokenizer than the run has now, "
            "whose codes mean different images; train it again with "
            f"`{command('train')} --run {run.path} --stage {stage} --no-resume`"
        )

"""Each stage's objective with a batch of random data of the right shapes, without a run or data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from dalle_mini_impl.captions import CaptionTokenizer
from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.data.batches import CodeBatch, ImageBatch
from dalle_mini_impl.experiment import Experiment
from dalle_mini_impl.models.clip import Clip
from dalle_mini_impl.models.dalle import Dalle
from dalle_mini_impl.models.tokenizers.image_tokenizer import (
    DvaeConfig,
    FsqConfig,
    ImageTokenizer,
    ImageTokenizerConfig,
    VqganConfig,
    build_image_tokenizer,
)
from dalle_mini_impl.models.tokenizers.palette import PaletteConfig
from dalle_mini_impl.models.tokenizers.perceptual import PerceptualNetwork
from dalle_mini_impl.runs.loading import frozen
from dalle_mini_impl.training.objectives.clip import ClipObjective
from dalle_mini_impl.training.objectives.dalle import DalleObjective
from dalle_mini_impl.training.objectives.image_tokenizer import DvaeObjective, FsqObjective
from dalle_mini_impl.training.objectives.palette import PaletteObjective
from dalle_mini_impl.training.objectives.vqgan import VqganObjective

Stage = Literal["image_tokenizer", "transformer", "clip"]
STAGES: tuple[Stage, ...] = ("image_tokenizer", "transformer", "clip")


@dataclass(frozen=True)
class DryRun:
    """One stage, ready to take a step."""

    objective: Any
    training: TrainingConfig
    batch: Callable[[int, torch.device], Any]
    """A batch of so many examples on a device."""
    frozen: tuple[nn.Module, ...] = ()
    """Networks that the objective looks through and does not train."""
    second_phase: float = 1.0
    """Share of the run before a discriminator takes part; 1 where there is none."""


def vocabulary_size(experiment: Experiment) -> int:
    """Entries of the vocabulary; at most as many where it is yet to be trained."""
    config = experiment.captions
    if config.vocabulary is None:
        return config.vocabulary_size
    return CaptionTokenizer.from_config(config).vocabulary_size


def dry_run(experiment: Experiment, stage: Stage, words: int) -> DryRun:
    """The stage with untrained models, on torch's default device.

    words: `vocabulary_size(experiment)`.
    """
    context, size = experiment.captions.context, experiment.data.image_size
    tokenizer = build_image_tokenizer(experiment.image_tokenizer, size)

    def captions(*shape: int, device: torch.device) -> torch.Tensor:
        return torch.ones(*shape, context, dtype=torch.long, device=device)

    def image_batch(rows: int, device: torch.device, wrong: int = 0) -> ImageBatch:
        images = torch.rand(rows, 3, size, size, device=device)
        negatives = captions(rows, wrong, device=device) if wrong else None
        return ImageBatch(images, captions(rows, device=device), negatives)

    def codes(rows: int, device: torch.device) -> CodeBatch:
        shape = (rows, tokenizer.grid**2)
        drawn = torch.randint(tokenizer.code_count, shape, device=device)
        return CodeBatch(drawn, captions(rows, device=device))

    if stage == "image_tokenizer":
        config = experiment.image_tokenizer
        seen = _feature_network(config)
        objective = _image_tokenizer_objective(tokenizer, config, seen)
        discriminator = isinstance(config, VqganConfig) and config.adversarial > 0
        start = (
            config.adversarial_start if discriminator and isinstance(config, VqganConfig) else 1.0
        )
        through = () if seen is None else (seen,)
        return DryRun(objective, config.training, image_batch, through, start)
    if stage == "transformer":
        shape = (words, context, tokenizer.code_count, tokenizer.grid)
        model = Dalle(experiment.transformer, *shape, tokenizer.factors)
        transformer = experiment.transformer
        return DryRun(DalleObjective(model, transformer), transformer.training, codes)
    clip = experiment.clip
    tokenizer = frozen(tokenizer)
    judge = ClipObjective(
        Clip(clip, words, context, size),
        clip,
        lambda images: tokenizer.decode(tokenizer.encode(images)),
    )
    return DryRun(
        judge,
        clip.training,
        lambda rows, device: image_batch(rows, device, clip.hard_negatives),
        (tokenizer,),
    )


def _feature_network(config: ImageTokenizerConfig) -> PerceptualNetwork | None:
    """What a perceptual loss looks through; another network than the trained one is not known."""
    if not isinstance(config, VqganConfig) or config.perceptual == 0:
        return None
    return frozen(PerceptualNetwork(config.feature_network))


def _image_tokenizer_objective(
    model: ImageTokenizer, config: ImageTokenizerConfig, seen: PerceptualNetwork | None
) -> DvaeObjective | FsqObjective | VqganObjective | PaletteObjective:
    match config:
        case DvaeConfig():
            return DvaeObjective(model, config)
        case FsqConfig():
            return FsqObjective(model, config)
        case PaletteConfig():
            return PaletteObjective(model, config)
        case VqganConfig():
            return VqganObjective(model, config, seen)

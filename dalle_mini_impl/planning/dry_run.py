"""Each stage's objective with a batch of random data of the right shapes, without a run or data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dalle_mini_impl.captions import CaptionTokenizer
from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.data.batches import CodeBatch, ImageBatch
from dalle_mini_impl.experiment import Experiment
from dalle_mini_impl.experiment.models import new_clip, new_dalle, new_image_tokenizer
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer
from dalle_mini_impl.models.tokenizers.perceptual import PerceptualNetwork
from dalle_mini_impl.runs.loading import frozen
from dalle_mini_impl.runs.stages import StageName
from dalle_mini_impl.training.objectives.clip_in_parts import clip_objective
from dalle_mini_impl.training.objectives.dalle import DalleObjective
from dalle_mini_impl.training.objectives.image_tokenizer import ImageTokenizerObjective


@dataclass(frozen=True)
class DryRun:
    """One stage, ready to take a step."""

    objective: Any
    training: TrainingConfig
    batch: Callable[[int, torch.device], Any]
    """A batch of so many examples on a device."""
    frozen: tuple[nn.Module, ...] = ()
    """Networks that the objective uses and does not train."""
    discriminator_start: float = 1.0
    """Share of the run before a discriminator takes part; 1 where there is none."""


def vocabulary_size(experiment: Experiment) -> int:
    """Entries of the vocabulary; at most as many where it is yet to be trained."""
    config = experiment.captions
    if config.vocabulary is None:
        return config.vocabulary_size
    return CaptionTokenizer.from_config(config).vocabulary_size


def dry_run(experiment: Experiment, stage: StageName, words: int) -> DryRun:
    """A stage that trains a model, with an untrained one on torch's default device.

    words: `vocabulary_size(experiment)`.
    """
    tokenizer = new_image_tokenizer(experiment)
    if stage == "image_tokenizer":
        return _image_tokenizer(experiment, tokenizer)
    if stage == "transformer":
        return _transformer(experiment, tokenizer, words)
    return _clip(experiment, frozen(tokenizer), words)


def _image_tokenizer(experiment: Experiment, tokenizer: ImageTokenizer) -> DryRun:
    config = experiment.image_tokenizer
    network, start = None, 1.0
    perceptual, adversarial = config.objective.perceptual, config.objective.adversarial
    if adversarial.weight > 0:
        start = adversarial.start
    if perceptual.weight > 0:
        # Another network than the one that is trained first is not known here.
        network = frozen(PerceptualNetwork(perceptual.network))
    objective = ImageTokenizerObjective(tokenizer, config, network)
    networks = () if network is None else (network,)
    return DryRun(objective, config.training, _image_batches(experiment), networks, start)


def _transformer(experiment: Experiment, tokenizer: ImageTokenizer, words: int) -> DryRun:
    config = experiment.transformer
    model = new_dalle(experiment, words, tokenizer)

    def batch(rows: int, device: torch.device) -> CodeBatch:
        shape = (rows, tokenizer.grid**2)
        codes = torch.randint(tokenizer.code_count, shape, device=device)
        return CodeBatch(codes, _captions(experiment, rows, device=device))

    return DryRun(DalleObjective(model, config), config.training, batch)


def _clip(experiment: Experiment, tokenizer: ImageTokenizer, words: int) -> DryRun:
    config = experiment.clip
    objective = clip_objective(
        new_clip(experiment, words),
        config,
        lambda images: tokenizer.decode(tokenizer.encode(images)),
    )
    batch = _image_batches(experiment, config.hard_negatives)
    return DryRun(objective, config.training, batch, (tokenizer,))


def _image_batches(
    experiment: Experiment, negatives: int = 0
) -> Callable[[int, torch.device], ImageBatch]:
    size = experiment.data.image_size

    def batch(rows: int, device: torch.device) -> ImageBatch:
        images = torch.rand(rows, 3, size, size, device=device)
        wrong = _captions(experiment, rows, negatives, device=device) if negatives else None
        return ImageBatch(images, _captions(experiment, rows, device=device), wrong)

    return batch


def _captions(experiment: Experiment, *shape: int, device: torch.device) -> torch.Tensor:
    return torch.ones(*shape, experiment.captions.context, dtype=torch.long, device=device)

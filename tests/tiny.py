"""The smallest experiment that works, and a run folder of it with untrained models."""

from pathlib import Path

import torch

from dalle_mini_impl.captions import CaptionTokenizer
from dalle_mini_impl.experiment import Experiment
from dalle_mini_impl.experiment.models import new_clip, new_dalle, new_image_tokenizer
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.stages import MODEL_STAGES

SETTINGS = {
    "data": {
        "path": "shapes",
        "image_size": 32,
        "workers": 1,
        "shapes": {"train_examples": 40, "validation_examples": 24, "held_out_examples": 24},
    },
    "captions": {"vocabulary": "shapes", "context": 24},
    "image_tokenizer": {
        "preset": "dvae", "quantizer": {"codes": 16},
        "autoencoder": {"width": 32, "blocks": 1},
        "training": {"steps": 20, "batch_size": 8},
    },
    "transformer": {"depth": 2, "width": 32, "heads": 2, "ffn_width": 48},
    "clip": {
        "embedding": 16, "image_width": 16, "image_stages": 2, "image_blocks": 1,
        "text_width": 32, "text_depth": 1, "text_heads": 2, "training": {"batch_size": 8},
    },
    "sampling": {"candidates": 4, "num_images": 2, "guidance": 2.0},
}  # fmt: skip
TWO_STEPS = {"steps": 2, "batch_size": 4, "compile": "off", "previews": 1, "log_every": 1}
"""Training for tests that only need a stage to run through."""


def tiny_experiment(training: dict | None = None, **sections: dict) -> Experiment:
    """SETTINGS, updated by `sections`, with `training` in every stage if given.

    An `image_tokenizer` with a preset replaces the whole section.
    """
    settings = {}
    for name, section in SETTINGS.items():
        changes = sections.get(name, {})
        trained = {"training": training} if training and name in MODEL_STAGES else {}
        settings[name] = {**({} if "preset" in changes else section), **trained, **changes}
    return Experiment.model_validate(settings)


def tiny_run(
    path: Path, weights: tuple[str, ...] = ("image_tokenizer", "dalle", "clip"), **sections: dict
) -> RunFolder:
    """A run with the named weights, untrained and the same every time; see `tiny_experiment`."""
    experiment = tiny_experiment(**sections)
    run = RunFolder.create(path, experiment)
    captions = CaptionTokenizer.from_config(experiment.captions)
    run.save_captions(captions)
    torch.manual_seed(0)
    tokenizer = new_image_tokenizer(experiment)
    models = {
        "image_tokenizer": tokenizer,
        "dalle": new_dalle(experiment, captions.vocabulary_size, tokenizer),
        "clip": new_clip(experiment, captions.vocabulary_size),
    }
    # Residual branches start at zero and heads near it: without this, no part would matter.
    for parameter in models["dalle"].parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    for name in weights:
        run.save_weights(name, models[name].state_dict())
    return run

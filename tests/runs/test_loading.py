"""Loaded models have the run's weights, and frozen ones do not train."""

import torch
from torch import nn

from dalle_mini_impl.runs.loading import frozen, load_clip, load_dalle, load_image_tokenizer
from tests.tiny import tiny_run


def test_frozen_is_evaluation_mode_without_gradients():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    assert frozen(model, "cpu") is model
    assert not model[1].training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert {parameter.device.type for parameter in frozen(model, "meta").parameters()} == {"meta"}


def test_models_are_loaded_with_the_weights_of_the_run(tmp_path):
    run = tiny_run(tmp_path / "run")
    captions = run.captions()
    tokenizer = load_image_tokenizer(run)
    loaded = {
        "image_tokenizer": tokenizer,
        "dalle": load_dalle(run, captions, tokenizer),
        "clip": load_clip(run, captions),
    }
    for name, model in loaded.items():
        saved, _ = run._read_weights(name)
        state = model.state_dict()
        assert state.keys() == saved.keys()
        assert all(torch.equal(state[key], value) for key, value in saved.items())

"""Where bf16 is chosen and where it is refused."""

import pytest
import torch

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.precision import available_device, best_device, choose_precision


def test_bf16_is_refused_on_a_cpu_that_emulates_it(monkeypatch):
    cpu = torch.device("cpu")
    name = "dalle_mini_impl.precision.native_bf16"
    monkeypatch.setattr(name, lambda device: False)
    assert choose_precision("auto", cpu) == "fp32"
    with pytest.raises(ConfigError, match="use `auto` or `fp32`"):
        choose_precision("bf16", cpu)
    monkeypatch.setattr(name, lambda device: True)
    assert choose_precision("auto", cpu) == "bf16"


def test_apples_gpu_is_offered_and_not_chosen(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert best_device() == torch.device("cpu")
    with pytest.raises(ConfigError, match="not available here; use cpu or mps"):
        available_device("gpu")
    asked, there = [], torch.zeros(0)
    monkeypatch.setattr(torch, "empty", lambda size, device: asked.append(device) or there)
    available_device("mps")
    assert asked == ["mps"]

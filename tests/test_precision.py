"""Where bf16 is chosen and where it is refused."""

import pytest
import torch

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.precision import choose_precision


def test_bf16_is_refused_on_a_cpu_that_emulates_it(monkeypatch):
    cpu = torch.device("cpu")
    name = "dalle_mini_impl.precision.native_bf16"
    monkeypatch.setattr(name, lambda device: False)
    assert choose_precision("auto", cpu) == "fp32"
    with pytest.raises(ConfigError, match="use `auto` or `fp32`"):
        choose_precision("bf16", cpu)
    monkeypatch.setattr(name, lambda device: True)
    assert choose_precision("auto", cpu) == "bf16"

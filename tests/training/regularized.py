"""A tiny transformer with every regularizer on, for tests of training."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.data.batches import CodeBatch
from dalle_mini_impl.models.config import TransformerConfig
from dalle_mini_impl.models.dalle import Dalle
from dalle_mini_impl.training.learner import Learner
from dalle_mini_impl.training.objectives.dalle import DalleObjective
from tests.training.toy import assert_equal, folder, tensors, train_toy

ALL = {
    "dropout": 0.2,
    "stochastic_depth": 0.4,
    "label_smoothing": 0.1,
    "code_replacement": 0.2,
    "caption_token_dropout": 0.2,
}
WORDS, CONTEXT, CODES, GRID, ROWS = 20, 6, 16, 4, 8


def batch_of(codes: torch.Tensor) -> CodeBatch:
    """These codes with captions of random lengths."""
    generator = torch.Generator().manual_seed(0)
    captions = torch.randint(1, WORDS, (len(codes), CONTEXT), generator=generator)
    lengths = torch.randint(1, CONTEXT + 1, (len(codes), 1), generator=generator)
    return CodeBatch(codes, captions * (torch.arange(CONTEXT) < lengths))


def data(step: int) -> CodeBatch:
    rng = np.random.default_rng((5, step))
    return batch_of(torch.from_numpy(rng.integers(0, CODES, (ROWS, GRID**2))))


def objective(fields: dict, depth: int = 2) -> DalleObjective:
    torch.manual_seed(0)
    small = {"depth": depth, "width": 32, "heads": 2, "ffn_width": 48, "preceding_tokens": 1}
    config = TransformerConfig(**small, **fields)
    model = Dalle(config, WORDS, CONTEXT, CODES, GRID)
    for parameter in model.parameters():  # branches start at zero
        torch.nn.init.normal_(parameter, std=0.2)
    return DalleObjective(model, config)


def learner(fields: dict) -> Learner:
    training = TrainingConfig(batch_size=ROWS, precision="fp32")
    return Learner(objective(fields), training, Accelerator(cpu=True))


def losses_of(fields: dict) -> dict[str, float]:
    """The logged losses of one step, and the norm of its gradient."""
    own = learner(fields)
    own.compute_gradients(data(0), 3, 0.5)
    return own.means.read()


def resumed(path: Path, compile: str) -> tuple[dict, dict]:
    """The newest checkpoints of an uninterrupted training and of a resumed one."""
    training = TrainingConfig(
        steps=8, batch_size=ROWS, compile=compile, precision="fp32", grad_accum_steps=2, log_every=1
    )
    whole, broken = folder(path / "whole"), folder(path / "broken")
    train_toy(objective(ALL, depth=1), data, training, whole)

    def interrupting(step: int) -> CodeBatch:
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
        return data(step)

    with pytest.raises(SystemExit):
        train_toy(objective(ALL, depth=1), interrupting, training, broken)
    assert not broken.has_weights("toy")
    train_toy(objective(ALL, depth=1), data, training, broken)
    return tensors(whole), tensors(broken)


def main(path: str) -> None:
    """Resume compiled; without the compiler's last part, which only takes time."""
    torch.compile = partial(torch.compile, backend="aot_eager")
    assert_equal(*resumed(Path(path), compile="on"))

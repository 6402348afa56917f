"""A batch in parts has the gradients and the losses of the whole batch."""

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator

from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.data.batches import CodeBatch, ImageBatch
from dalle_mini_impl.models.clip import LARGEST_LOG_SCALE, Clip
from dalle_mini_impl.models.config import ClipConfig, TransformerConfig
from dalle_mini_impl.models.dalle import Dalle
from dalle_mini_impl.training.learner import Learner
from dalle_mini_impl.training.objectives.clip_in_parts import clip_objective
from dalle_mini_impl.training.objectives.dalle import DalleObjective

ROWS, WORDS, CONTEXT, SIZE = 10, 20, 6, 16
PARTS = 4  # of 2, 3, 2 and 3 examples


def training(parts: int, **changes) -> TrainingConfig:
    usual = {"batch_size": ROWS, "precision": "fp32", "max_grad_norm": None}
    return TrainingConfig(grad_accum_steps=parts, **usual | changes)


def captions(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Captions of very different lengths."""
    ids = torch.randint(1, WORDS, (*shape, CONTEXT), generator=generator)
    lengths = torch.randint(1, CONTEXT + 1, (*shape, 1), generator=generator)
    return ids * (torch.arange(CONTEXT) < lengths)


def stirred(model: torch.nn.Module) -> torch.nn.Module:
    """With no weight at zero, which would hide what feeds it."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim:
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return model


def dalle(parts: int) -> DalleObjective:
    config = TransformerConfig(
        depth=1, width=32, heads=2, ffn_width=48, preceding_tokens=1, caption_dropout=0.5,
        training=training(parts),
    )  # fmt: skip
    return DalleObjective(stirred(Dalle(config, WORDS, CONTEXT, 16, 4)), config)


def clip(parts: int, loss: str = "infonce") -> object:
    config = ClipConfig(
        embedding=16, image_width=16, image_stages=2, image_blocks=1, text_width=32,
        text_depth=1, text_heads=2, preceding_tokens=1, loss=loss, reconstructions=0.3,
        training=training(parts),
    )  # fmt: skip
    model = stirred(Clip(config, WORDS, CONTEXT, SIZE))
    return clip_objective(model, config, lambda images: 1 - images)


def step(objective, batch) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """The gradients and the logged losses of one step."""
    learner = Learner(objective, objective.config.training, Accelerator(cpu=True))
    assert torch.isfinite(learner.compute_gradients(batch, 3, 0.5))
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in objective.model.named_parameters()
        if parameter.requires_grad
    }
    return gradients, learner.means.read()


def assert_same_step(make, batch):
    (whole, said), (parts, said_in_parts) = (step(make(n), batch) for n in (1, PARTS))
    assert said_in_parts == pytest.approx(said, rel=1e-5)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
        assert gradient.any(), name


def test_the_transformers_text_loss_is_that_of_all_tokens_of_the_batch():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(16, (ROWS, 16), generator=generator)
    assert_same_step(dalle, CodeBatch(codes, captions(generator, ROWS)))


@pytest.mark.parametrize("loss", ["infonce", "siglip"])
@pytest.mark.parametrize("negatives", [0, 2])
def test_clip_compares_each_example_with_the_whole_batch(loss, negatives):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(ROWS, 3, SIZE, SIZE, generator=generator)
    batch = ImageBatch(images, captions(generator, ROWS), texts=torch.arange(ROWS) // 2)
    if negatives:
        wrong = captions(generator, ROWS, negatives)
        wrong[3] = 0  # None can be made for this image.
        batch = replace(batch, negatives=wrong)
    assert_same_step(lambda parts: clip(parts, loss), batch)


def test_clip_in_parts_names_what_is_not_finite():
    objective = clip(PARTS)
    generator = torch.Generator().manual_seed(0)
    batch = ImageBatch(torch.rand(ROWS, 3, SIZE, SIZE), captions(generator, ROWS))
    torch.nn.init.constant_(objective.model.image.reduce.bias, float("nan"))
    learner = Learner(objective, objective.config.training, Accelerator(cpu=True))
    assert not torch.isfinite(learner.compute_gradients(batch, 0, 0.0))
    assert "parameter image.reduce.bias" in learner.diagnose(batch, 0, 0.0)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_clips_scale_stops_at_its_bound_and_comes_back(optimizer):
    objective = clip(1)
    model = objective.model
    config = training(1, optimizer=optimizer, learning_rate=0.1, warmup=0.0, weight_decay=0.0)
    learner = Learner(objective, config, Accelerator(cpu=True))

    def pull(direction: float) -> None:
        for own in learner.optimizers:
            own.zero_grad()
        (direction * model.logit_scale).backward()
        learner.update(0.0)

    for _ in range(40):
        pull(-1.0)
    assert model.logit_scale.item() == pytest.approx(100)
    assert model.log_scale.item() <= LARGEST_LOG_SCALE + 1e-6
    assert model.log_scale.grad.item() == pytest.approx(-100, rel=1e-4)
    for _ in range(40):
        pull(1.0)
    assert model.logit_scale.item() < 90

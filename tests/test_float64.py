"""What runs on the chosen device makes no float64, which Apple's GPUs do not have."""

import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dalle_mini_impl.cli.optimize import main as optimize
from dalle_mini_impl.experiment.models import new_dalle, new_image_tokenizer
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.retrieval.encoder import RunClip, rerank
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.sampling.compiled.steps import CompiledSteps
from dalle_mini_impl.sampling.draw import SamplingConfig
from dalle_mini_impl.training.processes import cpu_only
from dalle_mini_impl.training.run_stages import run_stages
from tests.tiny import TWO_STEPS, tiny_experiment, tiny_run


class NoFloat64(TorchDispatchMode):
    """Fails where an operator gives a tensor of float64, as it would on such a GPU."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for leaf in tree_leaves(result):
            assert not (isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64), function
        return result


def test_float64_is_noticed():
    with NoFloat64(), pytest.raises(AssertionError, match="_to_copy"):
        torch.ones(2).double()


def test_sampling_ranking_and_search_make_none(tmp_path):
    run = tiny_run(tmp_path / "run")
    image = Image.effect_noise((40, 40), 80).convert("RGB")
    with NoFloat64():
        model = TextToImage.from_pretrained(run, "cpu")
        for ranking in ("both", "ratio"):
            model("a red star", rank_by=ranking, top_k=4, top_p=0.9, compile="off")
        model.rank_captions(image, ["a red star", "a blue ring"], "both")
        model.continue_text("a small", 2)
        rerank(RunClip.from_run(run, "cpu"), "a red star", [image, image])


def test_training_makes_none(tmp_path):
    run = RunFolder.create(tmp_path / "run", tiny_experiment(TWO_STEPS))
    with NoFloat64():
        run_stages(run)


def test_optimizing_makes_none(tmp_path):
    run = tiny_run(tmp_path / "run")
    options = ["--steps", "2", "--cutouts.count", "2", "--film.format", "none", "--device", "cpu"]
    with NoFloat64():
        optimize(["a red star", "--run", str(run.path), "--out", str(tmp_path), *options])


def test_a_gpu_that_nobody_tested_is_not_chosen_for_training(monkeypatch):
    for name in ("ACCELERATE_USE_CPU", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert cpu_only()
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert not cpu_only()


def test_steps_are_not_compiled_for_a_device_of_unknown_kind():
    experiment = tiny_experiment()
    with torch.device("meta"):
        tokenizer = new_image_tokenizer(experiment)
        model = new_dalle(experiment, 300, tokenizer)
    config = SamplingConfig(compile="on")
    with CompiledSteps(model, []).choose(config, images=4) as chosen:
        assert chosen is None

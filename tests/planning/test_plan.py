"""A plan is true: its counts are those of the models, of torch's counter and the files written."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from dalle_mini_impl.cli import main
from dalle_mini_impl.data.codes import CodeCache, CodeKey
from dalle_mini_impl.data.preparation import prepare
from dalle_mini_impl.experiment import Experiment, load_experiment
from dalle_mini_impl.kernels import chunks
from dalle_mini_impl.kernels.chunks import LiveBytes
from dalle_mini_impl.models.tokenizers.perceptual import PerceptualNetwork
from dalle_mini_impl.planning.advice import advise
from dalle_mini_impl.planning.counting import Cost, count_encoding, count_stage
from dalle_mini_impl.planning.disk import count_data
from dalle_mini_impl.planning.dry_run import dry_run, vocabulary_size
from dalle_mini_impl.planning.plan import make_plan
from dalle_mini_impl.runs.stages import MODEL_STAGES
from dalle_mini_impl.training.optimizers import build_optimizer
from tests.tiny import tiny_experiment

CPU = torch.device("cpu")
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FP32 = {"steps": 10, "batch_size": 4, "precision": "fp32"}


def tiny(training: dict = FP32, **sections: dict) -> Experiment:
    return tiny_experiment(training, **sections)


def vqgan() -> Experiment:
    tokenizer = {
        "preset": "vqgan", "autoencoder": {"width": 32, "blocks": 1},
        "quantizer": {"codes": 16, "initialization": "random", "dead_code_threshold": 0.0},
        "objective": {"adversarial": {"start": 0.0}},
    }  # fmt: skip
    return tiny(image_tokenizer=tokenizer)


def dvae() -> Experiment:
    networks = {"width": 32, "blocks": 1}
    quantizer = {"codes": [16, 8]}
    return tiny(image_tokenizer={"preset": "dvae", "autoencoder": networks, "quantizer": quantizer})


EXPERIMENTS = {
    "fsq": tiny,
    "patterns": lambda: tiny(transformer={"attention": "dalle", "block": "dalle"}),
    "dvae": dvae,
    "vqgan": vqgan,
}
CASES = [
    *(("fsq", stage) for stage in MODEL_STAGES),
    ("patterns", "transformer"),
    ("dvae", "image_tokenizer"),
    ("vqgan", "image_tokenizer"),
]


@pytest.mark.parametrize(("name", "stage"), CASES)
def test_counts_are_those_of_a_real_step(name, stage):
    experiment = EXPERIMENTS[name]()
    words = vocabulary_size(experiment)
    cost = count_stage(experiment, stage, words)
    real = dry_run(experiment, stage, words)
    discriminator = getattr(real.objective, "discriminator", None)
    trained = [real.objective.model] + ([discriminator] if discriminator is not None else [])
    parameters = [p for module in trained for p in module.parameters() if p.requires_grad]
    assert cost.parameters == sum(p.numel() for p in parameters)
    assert cost.gradients == 4 * cost.parameters

    if name == "vqgan":
        real.objective.model.quantizer.eval()  # statistics of the codebook are no training FLOPs
    optimizers = [o for m in trained for o in build_optimizer(m, real.training)]
    batch = real.batch(4, CPU)
    if hasattr(real.objective, "prepare"):
        batch = real.objective.prepare(batch)
    with FlopCounterMode(display=False) as flops:
        if discriminator is not None:
            discriminator.requires_grad_(False)
        real.objective.losses(real.objective.model, batch, 1.0, None)["loss"].backward()
        if discriminator is not None:
            discriminator.requires_grad_(True)
            second = (discriminator, real.objective.model, batch, 1.0, None)
            real.objective.discriminator_losses(*second)["loss"].backward()
    assert cost.flops_per_sample == pytest.approx(flops.get_total_flops() / 4)
    with FlopCounterMode(display=False) as flops:
        for optimizer in optimizers:
            optimizer.step()
    assert cost.flops_per_update == pytest.approx(flops.get_total_flops())
    state = [s for o in optimizers for p in o.state.values() for s in p.values()]
    assert cost.optimizer == sum(s.numel() * s.element_size() for s in state)
    assert cost.weights + cost.gradients + cost.optimizer < cost.peak
    assert cost.activations < cost.peak


def test_the_transformer_takes_about_six_flops_per_parameter_and_token():
    """RECIPES for a decoder: 6·N·S + 12·L·d·S² of a stream of S positions."""
    experiment = tiny(transformer={"depth": 4, "width": 96, "heads": 4, "ffn_width": 256})
    cost = count_stage(experiment, "transformer", vocabulary_size(experiment))
    positions = experiment.captions.context + 16
    blocks = 4 * (4 * 96 * 96 + 3 * 96 * 256)
    heads = (experiment.captions.context * 413 + 16 * 16) * 96
    expected = 6 * (blocks * positions + heads) + 12 * 4 * 96 * positions**2
    assert cost.flops_per_sample == pytest.approx(expected, rel=0.1)


def test_a_perceptual_loss_costs_what_it_looks_through():
    def flops(weight: float) -> float:
        settings = vqgan().model_dump()
        settings["image_tokenizer"]["objective"]["perceptual"]["weight"] = weight
        experiment = Experiment.model_validate(settings)
        return count_stage(experiment, "image_tokenizer", 300).flops_per_sample

    network = PerceptualNetwork(vqgan().image_tokenizer.objective.perceptual.network)
    with FlopCounterMode(display=False) as one, torch.no_grad():
        network(torch.rand(1, 3, 32, 32))
    # Both images' features forward, and back for the loss and for the discriminator's balance.
    assert flops(0.1) - flops(0.0) == pytest.approx(4 * one.get_total_flops())


def test_memory_grows_with_the_examples_held_at_once():
    words = vocabulary_size(tiny())

    def peak(**training) -> int:
        experiment = tiny(training=FP32 | {"batch_size": 32} | training)
        return count_stage(experiment, "transformer", words).peak

    whole, parts, few = peak(), peak(grad_accum_steps=4), peak(batch_size=8)
    assert whole > 1.5 * parts
    assert few <= parts < 1.02 * few  # The whole batch waits, as codes and captions.


def test_clip_in_parts_is_counted_as_it_is_done():
    words = vocabulary_size(tiny())

    def cost(parts: int) -> Cost:
        experiment = tiny(training=FP32 | {"batch_size": 16, "grad_accum_steps": parts})
        return count_stage(experiment, "clip", words)

    whole, parts = cost(1), cost(4)
    assert parts.peak < whole.peak
    # All parts are embedded once more, without a backward pass; images are decoded only once.
    assert 1.1 < parts.flops_per_sample / whole.flops_per_sample < 4 / 3


def test_the_state_at_the_best_step_is_counted():
    def cost(**training):
        experiment = tiny_experiment(transformer={"training": training})
        return count_stage(experiment, "transformer", vocabulary_size(experiment))

    stops, runs_on = cost(), cost(early_stop=None)
    assert stops.peak - runs_on.peak == stops.state > 0


def test_previews_of_an_image_tokenizer_are_counted_as_they_are_made(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 2**40)  # So that they take more than a step.
    words = vocabulary_size(dvae())
    counted = count_stage(dvae(), "image_tokenizer", words).peak
    objective = dry_run(dvae(), "image_tokenizer", words).objective
    images = torch.rand(256, 3, 32, 32)
    with LiveBytes() as memory:
        objective.evaluate(objective.model.eval(), images)
    assert memory.peak < counted < memory.peak + 2**23


def test_encoding_is_counted_as_it_is_done():
    experiment = dvae()
    tokenizer = dry_run(experiment, "image_tokenizer", 300).objective.model
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        tokenizer.encode(torch.rand(2, 3, 32, 32))
    assert count_encoding(experiment) == flops.get_total_flops() / 2


def written(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_the_store_takes_the_bytes_that_were_said(tmp_path):
    experiment = tiny()
    said = count_data(experiment, 16, 1)
    assert said.images == {"train": 40, "validation": 24, "held_out": 24}
    for split in ("train", "validation", "held_out"):
        prepare(experiment.data, split, tmp_path, lambda _: None)
    pixels = sum(file.stat().st_size for file in tmp_path.rglob("images.u8"))
    assert pixels == 88 * said.bytes_per_image
    assert said.store == pytest.approx(written(tmp_path), rel=0.02)
    codes = torch.zeros(40, 16, dtype=torch.int64).numpy()
    CodeCache.write(tmp_path / "codes", CodeKey("w", "d", 1, 40), [codes])
    assert said.codes == pytest.approx((tmp_path / "codes" / "codes.npy").stat().st_size, abs=128)


def test_a_folder_is_counted_without_being_decoded(tmp_path):
    for number in range(30):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number}.png").write_bytes(b"not decoded")
        (tmp_path / "in" / f"{number}.txt").write_text("a red heart")
    settings = tiny().model_dump()
    settings["data"] = {"path": str(tmp_path / "in"), "image_size": 32, "held_out": 0.1}
    said = count_data(Experiment.model_validate(settings), 16, 4)
    assert said.images == {"train": 27, "validation": 3, "held_out": 0}
    assert said.codes == 27 * 4 * 16 * 2
    for number in range(30):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / "in" / f"{number}.png")
    experiment = Experiment.model_validate(settings)
    for split in ("train", "validation"):
        prepare(experiment.data, split, tmp_path / "store", lambda _: None)
    assert said.store == pytest.approx(written(tmp_path / "store"), rel=0.02)


def test_steps_are_those_that_fit_into_the_minutes():
    unlimited = make_plan(tiny(training=FP32)).stages[1]
    assert (unlimited.steps, unlimited.limited_by, unlimited.measured) == (10, "steps", True)
    assert unlimited.seconds == pytest.approx(10 * unlimited.step_seconds)
    cost = unlimited.cost
    flops = 10 * (4 * cost.flops_per_sample + cost.flops_per_update)
    assert unlimited.flops == pytest.approx(flops)
    limited = make_plan(tiny(training=FP32 | {"steps": 10**9, "minutes": 1.0})).stages[1]
    assert limited.limited_by == "minutes"
    assert limited.seconds == pytest.approx(60, abs=limited.step_seconds)
    assert limited.images == 4 * limited.steps


def test_what_does_not_fit_is_said_with_settings_that_help():
    experiment = tiny(training=FP32 | {"batch_size": 256})
    plan = make_plan(experiment, measure=False)
    stage = plan.stages[1]
    assert plan.fits(stage)
    tight = replace(plan, memory=plan.program + stage.cost.peak - 1)
    assert not tight.fits(stage)
    advice = advise(experiment, tight, stage)
    assert advice[0].fits
    by_name = {a.setting: a for a in advice}
    assert {"transformer.training.grad_accum_steps", "transformer.depth"} <= set(by_name)
    changed = tiny(training=FP32 | {"batch_size": 128})
    smaller = count_stage(changed, "transformer", vocabulary_size(changed)).peak
    assert by_name["transformer.training.batch_size"].saves == stage.cost.peak - smaller


def test_an_image_tokenizer_that_does_not_fit_gets_advice():
    experiment = tiny(image_tokenizer={"preset": "dvae", "autoencoder": {"width": 64}})
    plan = make_plan(experiment, measure=False)
    stage = plan.stages[0]
    advice = advise(experiment, replace(plan, memory=plan.program + 1), stage)
    assert "image_tokenizer.autoencoder.width" in {own.setting for own in advice}


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_experiment_can_be_planned(config):
    shallow = {"transformer.depth": 1, "clip.text_depth": 1}  # counting takes a while by the layer
    plan = make_plan(load_experiment(config, shallow), measure=False)
    assert [stage.stage for stage in plan.stages] == list(MODEL_STAGES)
    assert all(stage.flops > 0 for stage in plan.stages)
    assert (plan.data.images is None) == bool(plan.data.unknown)


@pytest.fixture
def config(tmp_path) -> str:
    (tmp_path / "tiny.yaml").write_text(tiny().to_yaml(), encoding="utf-8")
    return str(tmp_path / "tiny.yaml")


def test_the_command_says_it_in_tables_and_in_json(config, capsys):
    assert main(["plan", config, "--no-measure", "--transformer.depth", "3"]) == 0
    text = capsys.readouterr().out
    assert "40 train, 24 validation, 24 held_out" in text
    assert main(["plan", config, "--json", "--transformer.depth", "3", "--no-measure"]) == 0
    plan = json.loads(capsys.readouterr().out)
    deeper = tiny(transformer={"depth": 3})
    expected = count_stage(deeper, "transformer", vocabulary_size(deeper)).parameters
    assert plan["stages"][1]["cost"]["parameters"] == expected
    assert f"{expected:,}" in text
    assert plan["stages"][1]["seconds"] is None


def test_the_yaml_may_follow_an_option(config, capsys):
    given = ["plan", "--json", "--no-measure", "--data.shapes.train-examples", "30", config]
    assert main(given) == 0
    assert json.loads(capsys.readouterr().out)["data"]["images"]["train"] == 30


def test_the_command_advises_for_a_smaller_machine(tmp_path, capsys):
    settings = tiny().model_dump(mode="json")
    settings["transformer"]["training"]["batch_size"] = 512
    config = tmp_path / "large.yaml"
    config.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    assert main(["plan", str(config), "--memory", "0.65", "--no-measure"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "There are 665.6 MiB." in text
    assert "transformer does not fit" in text
    assert "clip does not fit" not in text
    assert "--transformer.training.batch-size 256: saves" in text


@pytest.mark.parametrize("threads", [1, 2])
def test_stages_that_are_trained_at_the_same_time_are_added_up(config, capsys, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert main(["plan", config, "--no-measure", "--memory", "1"]) == 0
        said = "together: too much, train with --no-side-by-side" in capsys.readouterr().out
        assert main(["plan", config, "--no-measure", "--json"]) == 0
    finally:
        torch.set_num_threads(before)
    plan = json.loads(capsys.readouterr().out)
    peaks = [stage["cost"]["peak"] for stage in plan["stages"]]
    assert said == (threads == 2)
    assert plan["side_by_side"] == (2 * plan["program"] + sum(peaks[1:]) if said else None)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "CONFIG is missing"),
        (["CONFIG", "--memory", "0"], "--memory 0.0: should be greater than 0"),
        (["CONFIG", "--transformer.depth", "0"], "transformer.depth = '0'"),
    ],
)
def test_impossible_plans_are_refused(config, capsys, options, complaint):
    options = [config if option == "CONFIG" else option for option in options]
    assert main(["plan", *options]) == 2
    assert complaint in capsys.readouterr().err

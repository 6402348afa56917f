"""Experiments are read completely; an error names the field, its value and what to do."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from dalle_mini_impl.config import ConfigError, descriptions
from dalle_mini_impl.experiment import Experiment, field_paths, load_experiment
from dalle_mini_impl.experiment.sections import sections_of
from dalle_mini_impl.models.tokenizers.configs import ImageTokenizerConfig
from dalle_mini_impl.models.tokenizers.image_tokenizer import build_image_tokenizer

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.fixture
def save(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "x.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("name", sorted(file.stem for file in CONFIGS.glob("*.yaml")))
def test_shipped_experiments_are_read(name):
    experiment = load_experiment(CONFIGS / f"{name}.yaml")
    assert (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").startswith("#")
    synthetic = experiment.data.path in ("shapes", "panels")
    assert not synthetic or name.startswith(experiment.data.path)


def test_codes_of_a_lower_panel_do_not_depend_on_the_upper_background():
    experiment = load_experiment(CONFIGS / "panels.yaml")
    tokenizer = build_image_tokenizer(experiment.image_tokenizer, experiment.data.image_size)
    images = torch.ones(2, 3, 64, 64)
    images[:, 0, 48:56, 16:32] = 0
    images[1, :, :32] = 0.2
    first, second = tokenizer.encoder(images)
    assert torch.equal(first[:, 5:], second[:, 5:])


@pytest.mark.parametrize(
    "image_tokenizer",
    [
        {"autoencoder": {"width": 192}},
        {"preset": "vqgan"},
        {"preset": "fsq", "quantizer": {"levels": ["8x5", "5"]}},
    ],
)
def test_yaml_comes_back_equal(save, image_tokenizer):
    experiment = Experiment.model_validate({"image_tokenizer": image_tokenizer})
    assert load_experiment(save(experiment.to_yaml())) == experiment


def test_empty_file_and_empty_section_are_the_defaults(save):
    assert load_experiment(save("")) == Experiment()
    assert load_experiment(save("clip:\n")) == Experiment()


def test_scalars_are_those_of_yaml_1_2(save):
    text = "transformer: {training: {compile: off, learning_rate: 3e-3, minutes: null}}"
    training = load_experiment(save(text)).transformer.training
    assert (training.compile, training.learning_rate, training.minutes) == ("off", 3e-3, None)


def test_overrides_replace_fields_by_dotted_name(save):
    path = save("transformer: {depth: 2, width: 64}")
    experiment = load_experiment(path, {"transformer.depth": 8, "clip.training.steps": "7"})
    assert (experiment.transformer.depth, experiment.transformer.width) == (8, 64)
    assert experiment.clip.training.steps == 7


def test_another_preset_replaces_what_presets_set_and_keeps_the_rest(save):
    text = (
        "image_tokenizer: {preset: vqgan, downsampling: 4, quantizer: {codebook: gradient}, "
        "objective: {foreground: 0, adversarial: {weight: 2}}, training: {steps: 9}}"
    )
    overrides = {"image_tokenizer.preset": "fsq", "image_tokenizer.quantizer.levels": ["5x5"]}
    changed = load_experiment(save(text), overrides).image_tokenizer
    assert changed == ImageTokenizerConfig.model_validate(
        {
            "preset": "fsq",
            "downsampling": 4,
            "quantizer": {"levels": "5x5"},
            "objective": {"foreground": 0},
            "training": {"steps": 9},
        }
    )
    # The same preset again changes nothing.
    again = load_experiment(save(text), {"image_tokenizer.preset": "vqgan"}).image_tokenizer
    assert again == load_experiment(save(text)).image_tokenizer


@pytest.mark.parametrize("name", ["image_tokenizer.quantiser.type", "transformer.type"])
def test_types_of_what_does_not_exist_are_refused(save, name):
    with pytest.raises(ConfigError, match="no such setting"):
        load_experiment(save("transformer: {depth: 2}"), {name: "x"})


def test_another_type_keeps_the_settings_that_it_shares(save):
    text = "image_tokenizer: {autoencoder: {width: 128, attention: 1, blocks: 3}}"
    overrides = {"image_tokenizer.autoencoder.type": "palette"} | {
        "image_tokenizer.quantizer.codes": ["9", "4", "4"]
    }
    own = load_experiment(save(text), overrides).image_tokenizer.autoencoder
    assert (own.type, own.width, own.blocks) == ("palette", 128, 3)


def test_settings_are_frozen_and_described():
    with pytest.raises(ValidationError):
        Experiment().transformer.depth = 3
    undescribed = []
    for path in field_paths(Experiment):
        *sections, name = path.split(".")
        kinds = [Experiment]
        for part in sections:
            kinds = [
                found
                for kind in kinds
                if part in kind.model_fields
                for found in sections_of(kind.model_fields[part].annotation)
            ]
        kinds = [kind for kind in kinds if name in kind.model_fields]
        assert kinds
        undescribed += [path for kind in kinds if not descriptions(kind).get(name)]
    assert undescribed == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("transformer: {dept: 8}", "transformer.dept = 8: no such setting; did you mean depth?"),
        ("transformer: {steps: 8}", "did you mean transformer.training.steps?"),
        ("heads: 4", "heads = 4: no such setting; did you mean transformer.heads?"),
        ("trnsformer: {}", "did you mean transformer?"),
        ("xyz: 1", "the settings here are data, captions,"),
        ("image_tokenizer: {wdth: 3}", "image_tokenizer.wdth = 3"),
        ("transformer: {depth: abc}", "transformer.depth = 'abc': should be a valid integer"),
        ("transformer: {depth: 0}", "transformer.depth = 0: should be greater than 0 (Number of"),
        ("transformer: {depth: 2.5}", "transformer.depth = 2.5"),
        ("transformer: {training: {precision: half}}", "should be 'auto', 'fp32' or 'bf16'"),
        ("image_tokenizer: {preset: fsq, quantizer: {levels: [8x8, x]}}", "levels has 'x'; write"),
        ("image_tokenizer: {preset: [a]}", "image_tokenizer.preset = ['a']"),
        ("image_tokenizer: {preset: vq}", "image_tokenizer.preset = 'vq': should be 'dvae', 'fsq'"),
        (
            "image_tokenizer: {quantizer: {type: vq}}",
            "image_tokenizer.quantizer.type = 'vq': write one of 'categorical' or",
        ),
        ("image_tokenizer: {width: 64}", "did you mean image_tokenizer.autoencoder.width?"),
        ("data: 3", "data = 3: should be a section of settings"),
        ("data: {image_size: 60}", "data.image_size = 60: not divisible by image_tokenizer.down"),
        ("data: {image_size: 60}", "use 64"),
        (
            "image_tokenizer: {quantizer: {codes: [65536, 65536]}}",
            "4,294,967,296 different codes, but at most 2,147,483,648 can be stored; lower codes",
        ),
        (
            "image_tokenizer: {preset: fsq, quantizer: {levels: [64x64x64, 64x64x64]}}",
            "('64x64x64', '64x64x64'): 68,719,476,736 different codes",
        ),
        ("transformer: {heads: 5}", "transformer.heads = 5: does not divide transformer.width ="),
        ("transformer: {width: 60, heads: 10}", "rotary positions need a multiple of 4"),
        ("transformer: {dropout: 1}", "transformer.dropout = 1: should be less than 1 (Dropout of"),
        ("transformer: {label_smoothing: -0.1}", "transformer.label_smoothing = -0.1: should be"),
        (
            "{image_tokenizer: {preset: fsq}, transformer: {posterior_temperature: 0.5}}",
            "posterior_temperature = 0.5: the quantizer finite_scalar has no posterior",
        ),
        (
            "transformer: {posterior_temperature: 0.5, encodings: 1}",
            "posterior_temperature = 0.5: needs transformer.encodings = 2 or more",
        ),
        ("data: {random_shift: 64}", "random_shift 64: nothing would be left of images of 64"),
        ("clip: {text_heads: 5}", "clip.text_heads = 5: does not divide clip.text_width"),
        ("clip: {image_stages: 7}", "clip.image_stages = 7"),
        ("clip: {image_width: 60}", "clip.image_width = 60: not a multiple of 8"),
        ("image_tokenizer: {autoencoder: {width: 100}}", "use a multiple of 64"),
        ("transformer: {max_image_tokens: 63}", "fewer than the 8×8 = 64 codes"),
        ("sampling: {num_images: 9, candidates: 8}", "sampling.num_images = 9: more than"),
        (
            "clip: {training: {batch_size: 8, grad_accum_steps: 3}}",
            "clip.training.grad_accum_steps = 3",
        ),
        ("data: [", "not valid YAML ("),
        ("transformer:\n  depth: 2\n  depth: 3", "'depth' is given twice"),
        ("transformer:\n  a: b: c", "line 2"),
        ("- 1", "holds list, not sections"),
        ("data: !!python/object/apply:os.system [false]", "not valid YAML"),
    ],
)
def test_what_cannot_work_names_file_field_value_and_remedy(save, text, complaint):
    with pytest.raises(ConfigError) as caught:
        load_experiment(save(text))
    assert complaint in str(caught.value)
    assert "x.yaml" in str(caught.value)
    assert "validation error" not in str(caught.value)


def test_several_mistakes_are_reported_at_once(save):
    with pytest.raises(ConfigError) as caught:
        load_experiment(save("transformer: {depth: 0, dept: 1}\nfoo: 2"))
    assert all(name in str(caught.value) for name in ("depth = 0", "dept = 1", "foo = 2"))


def test_a_missing_file_lists_the_shipped_ones(tmp_path):
    with pytest.raises(ConfigError, match=r"nope\.yaml.*shapes-hour"):
        load_experiment(tmp_path / "nope.yaml")


def test_a_wrong_override_is_refused(save):
    with pytest.raises(ConfigError, match=r"transformer\.dept = 8.*did you mean depth"):
        load_experiment(save(""), {"transformer.dept": 8})
    with pytest.raises(ConfigError, match="is a value, not a section"):
        load_experiment(save("transformer: {depth: 2}"), {"transformer.depth.x": 8})

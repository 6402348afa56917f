"""Experiments are read completely; an error names the field, its value and what to do."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from dalle_mini_impl.config import ConfigError, TrainingConfig
from dalle_mini_impl.experiment import Experiment, field_paths, load_experiment
from dalle_mini_impl.models.tokenizers.configs import DvaeConfig, FsqConfig

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


@pytest.mark.parametrize("image_tokenizer", [DvaeConfig(width=192), FsqConfig(levels=(8, 5, 5))])
def test_yaml_comes_back_equal(save, image_tokenizer):
    experiment = Experiment(image_tokenizer=image_tokenizer)
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


def test_another_image_tokenizer_keeps_the_settings_that_it_shares(save):
    text = "image_tokenizer: {type: palette, downsampling: 4, colors: 3, training: {steps: 9}}"
    overrides = {"image_tokenizer.type": "fsq", "image_tokenizer.levels": ["5", "5"]}
    changed = load_experiment(save(text), overrides).image_tokenizer
    assert changed == FsqConfig(downsampling=4, levels=(5, 5), training=TrainingConfig(steps=9))
    with pytest.raises(ConfigError, match="write one of"):
        load_experiment(save(text), {"image_tokenizer.type": "vq"})


def test_settings_are_frozen_and_described():
    experiment = Experiment()
    with pytest.raises(ValidationError):
        experiment.transformer.depth = 3
    vqgan = Experiment.model_validate({"image_tokenizer": {"type": "vqgan"}})
    undescribed = []
    for path in field_paths(Experiment):
        *sections, name = path.split(".")
        # Sections that only one type of image tokenizer has.
        section = vqgan if "feature_network" in sections else experiment
        for part in sections:
            section = getattr(section, part)
        field = type(section).model_fields.get(name)
        if field is not None and not field.description:
            undescribed.append(path)
    assert undescribed == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("transformer: {dept: 8}", "transformer.dept = 8: no such setting; did you mean depth?"),
        ("transformer: {steps: 8}", "did you mean transformer.training.steps?"),
        ("heads: 4", "heads = 4: no such setting; did you mean transformer.heads?"),
        ("trnsformer: {}", "did you mean transformer?"),
        ("xyz: 1", "the settings here are data, captions,"),
        ("image_tokenizer: {type: fsq, wdth: 3}", "image_tokenizer.wdth = 3"),
        ("transformer: {depth: abc}", "transformer.depth = 'abc': should be a valid integer"),
        ("transformer: {depth: 0}", "transformer.depth = 0: should be greater than 0 (Number of"),
        ("transformer: {depth: 2.5}", "transformer.depth = 2.5"),
        ("transformer: {training: {precision: half}}", "should be 'auto', 'fp32' or 'bf16'"),
        ("image_tokenizer: {type: fsq, levels: [8, x]}", "image_tokenizer.levels.1 = 'x'"),
        ("image_tokenizer: {type: vq}", "image_tokenizer.type = 'vq': write one of 'dvae' or"),
        ("image_tokenizer: {width: 64}", "image_tokenizer.type = None: write one of"),
        ("data: 3", "data = 3: should be a section of settings"),
        ("data: {image_size: 60}", "data.image_size = 60: not divisible by image_tokenizer.down"),
        ("data: {image_size: 60}", "use 64"),
        ("image_tokenizer: {type: palette, colors: 4}", "image_tokenizer.colors = 4"),
        (
            "image_tokenizer: {type: palette, colors: 4}",
            "4,294,967,296 different codes, but at most 2,147,483,648 can be stored; lower colors",
        ),
        (
            "image_tokenizer: {type: fsq, levels: [64, 64, 64, 64, 64, 64]}",
            "image_tokenizer.levels = (64, 64, 64, 64, 64, 64): 68,719,476,736 different codes",
        ),
        ("transformer: {heads: 5}", "transformer.heads = 5: does not divide transformer.width ="),
        ("transformer: {width: 60, heads: 10}", "rotary positions need a multiple of 4"),
        ("clip: {text_heads: 5}", "clip.text_heads = 5: does not divide clip.text_width"),
        ("clip: {image_stages: 7}", "clip.image_stages = 7"),
        ("clip: {image_width: 60}", "clip.image_width = 60: not a multiple of 8"),
        ("image_tokenizer: {type: fsq, width: 100}", "use a multiple of 64"),
        ("transformer: {max_image_tokens: 63}", "fewer than the 8×8 = 64 codes"),
        ("sampling: {num_images: 9, candidates: 8}", "sampling.num_images = 9: more than"),
        (
            "clip: {training: {batch_size: 8, grad_accum_steps: 3}}",
            "clip.training.grad_accum_steps = 3",
        ),
        ("data: [", "line 1, column"),
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
    with pytest.raises(ConfigError, match=r"nope\.yaml.*configs/shapes\.yaml"):
        load_experiment(tmp_path / "nope.yaml")


def test_a_wrong_override_is_refused(save):
    with pytest.raises(ConfigError, match=r"transformer\.dept = 8.*did you mean depth"):
        load_experiment(save(""), {"transformer.dept": 8})
    with pytest.raises(ConfigError, match="is a value, not a section"):
        load_experiment(save("transformer: {depth: 2}"), {"transformer.depth.x": 8})

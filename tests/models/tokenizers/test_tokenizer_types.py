"""The comparison of image tokenizers' types: what is held equal, and what is reported."""

import json
from pathlib import Path

import pytest

from benchmarks.tokenizer_types import VARIANTS, Arguments, main, settings, table_of
from dalle_mini_impl.models.tokenizers.image_tokenizer import build_image_tokenizer
from tests.tiny import tiny_experiment


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    training = {"batch_size": 4, "compile": "off"}
    path.write_text(tiny_experiment(training).to_yaml(), encoding="utf-8")
    return path


def test_variants_share_grid_networks_and_time(config):
    arguments = Arguments(config=config, minutes=0.5)
    experiments = [settings(arguments, name, seed=3) for name in VARIANTS]
    models = [build_image_tokenizer(e.image_tokenizer, e.data.image_size) for e in experiments]
    assert {count for model in models for count in model.factors} == {512}
    assert {model.grid for model in models} == {4}
    trainings = [e.image_tokenizer.training for e in experiments]
    assert len({e.image_tokenizer.autoencoder for e in experiments}) == 1
    assert {(t.minutes, t.seed, t.batch_size) for t in trainings} == {(0.5, 3, 4)}


def test_table_averages_over_seeds():
    row = {"ssim": 0.5, "frechet_distance": 1.0, "usage": 1.0, "perplexity": 9.0, "steps": 5}
    results = [{"variant": "fsq", "psnr": value, **row} for value in (20.0, 22.0)]
    table = table_of([*results, {"variant": "dvae", "psnr": 18.0, **row}], 0.25, "")
    assert table.rows[0][:2] == ["fsq", "21.00 ± 1.41"]
    assert table.rows[1][:2] == ["dvae", "18.00"]
    assert "0.250" in table.rows[2]


def test_every_variant_is_trained_and_measured(config, tmp_path, capsys):
    out = tmp_path / "out"
    main(
        Arguments(
            config=config, variants=("dvae", "two factors"), minutes=0.01, seeds=(0,), out=out
        )
    )
    figures = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    assert [result["variant"] for result in figures["results"]] == ["dvae", "two factors"]
    for result in figures["results"]:
        assert result["psnr"] > 0
        assert 0 < result["usage"] <= 1
        assert result["steps"] > 0
    assert figures["real_against_real"] > 0
    assert (out / "sheet.png").is_file()
    assert "real images" in capsys.readouterr().out

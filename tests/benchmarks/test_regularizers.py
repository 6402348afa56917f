"""The comparison of regularizers: its variants are possible, and it trains and measures each."""

import json

import pytest

from benchmarks.regularizers import VARIANTS, Arguments, experiment_of, main
from dalle_mini_impl.experiment import Experiment, load_experiment
from tests.tiny import TWO_STEPS, tiny_experiment


@pytest.fixture
def tiny(tmp_path):
    settings = tiny_experiment(TWO_STEPS).to_yaml()
    (tmp_path / "tiny.yaml").write_text(settings, encoding="utf-8")
    return str(tmp_path / "tiny.yaml")


@pytest.mark.parametrize("place", ["emoji", "cifar10"])
def test_every_variant_changes_only_what_the_transformer_learns_from(tmp_path, place):
    arguments = Arguments(images=500, minutes=7, **{place: tmp_path})
    plain = experiment_of(arguments)
    assert plain.data.limit == 500
    assert plain.transformer.training.minutes == 7
    for variant in VARIANTS:
        own = experiment_of(arguments, variant)
        assert (own == plain) == (variant == "none")
        assert own.image_tokenizer == plain.image_tokenizer
    shipped = load_experiment(place)
    assert plain.image_tokenizer == shipped.image_tokenizer


def test_settings_may_be_a_variant_and_mistakes_are_named(tiny):
    arguments = Arguments(images=5, minutes=1, config=tiny, settings=("transformer.depth=1",))
    own = experiment_of(arguments, "transformer.dropout=0.3,transformer.label_smoothing=0.05")
    assert isinstance(own, Experiment)
    found = own.transformer
    assert (found.depth, found.dropout, found.label_smoothing) == (1, 0.3, 0.05)
    with pytest.raises(SystemExit, match="droput: neither a variant"):
        experiment_of(arguments, "droput")
    with pytest.raises(SystemExit, match="name one of"):
        experiment_of(Arguments(images=5, minutes=1))


def test_variants_are_trained_once_and_measured(tmp_path, tiny, capsys):
    arguments = Arguments(
        images=30, minutes=1, config=tiny, variants=("none", "shifts"), samples=8,
        folder=tmp_path / "runs", out=tmp_path / "out.json",
    )  # fmt: skip
    main(arguments)
    trained = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["trained"]
    assert list(trained) == ["none", "shifts"]
    for (own,) in trained.values():
        assert own["best_step"] == own["steps"] == 2
        assert 0 < own["true"] < 8
        assert own["held_out"] == 8
    printed = capsys.readouterr().out
    assert "| shifts |" in printed
    assert "encoding 30 images, 4 variants each" in printed
    main(arguments)
    assert "transformer: done" not in capsys.readouterr().out

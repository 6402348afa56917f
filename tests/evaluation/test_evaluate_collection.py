"""`dalle evaluate` on held-out data: every model of the run is measured."""

import json

import numpy as np

from dalle_mini_impl.cli import main
from tests.tiny import tiny_run


def test_a_run_is_measured_on_its_own_held_out_data(tmp_path, capsys):
    run = tiny_run(tmp_path / "run")
    arguments = ["--run", str(run.path), "--max-examples", "20", "--candidates", "1", "2"]
    assert main(["evaluate", *arguments]) == 0
    out = run.path / "evaluation"
    values = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    parts = values["parts"]
    assert parts["Image tokenizer"]["images"] == 20
    assert parts["Image tokenizer"]["features"] == "pixels averaged to 8 × 8"
    assert "cannot distinguish captions" in parts["Features"]["warning"]
    assert parts["Samples: distribution"]["images"] == 20
    assert parts["CLIP: hard negatives"]["pairs"] == 20
    assert set(parts["Reranking"]) >= {"best_of_1", "best_of_2"}
    read = parts["Transformer: does it read the caption?"]
    assert all(np.isfinite(v["bits_per_token"]) for v in read.values())
    printed = capsys.readouterr().out
    assert "true caption" in printed
    assert "WARNING: The run's CLIP cannot distinguish captions" in printed
    page = (out / "evaluation.html").read_text(encoding="utf-8")
    assert "Worst reconstructions" in page
    assert "cannot distinguish captions" in page
    assert "http" not in page


def test_parts_whose_models_are_missing_are_left_out(tmp_path, capsys):
    run = tiny_run(tmp_path / "run", weights=("image_tokenizer",))
    arguments = ["--run", str(run.path), "--max-examples", "8", "--split", "held_out"]
    assert main(["evaluate", *arguments, "--json"]) == 0
    values = json.loads((run.path / "evaluation/evaluation.json").read_text(encoding="utf-8"))
    assert list(values["parts"]) == ["Image tokenizer"]
    told = capsys.readouterr()
    assert json.loads(told.out) == values
    assert "image tokenizer: 8 held_out images" in told.err
    assert values["parts"]["Image tokenizer"]["features"] == "pixels averaged to 8 × 8"

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
    assert "run's CLIP" in parts["Image tokenizer"]["features"]
    assert parts["Samples: distribution"]["images"] == 20
    assert parts["CLIP: hard negatives"]["pairs"] == 20
    assert set(parts["Reranking"]) >= {"best_of_1", "best_of_2"}
    assert all(np.isfinite(v["bits_per_token"]) for v in list(parts.values())[1].values())
    printed = capsys.readouterr().out
    assert "true caption" in printed
    page = (out / "evaluation.html").read_text(encoding="utf-8")
    assert "Worst reconstructions" in page
    assert "http" not in page


def test_parts_whose_models_are_missing_are_left_out(tmp_path):
    run = tiny_run(tmp_path / "run", weights=("image_tokenizer",))
    arguments = ["--run", str(run.path), "--max-examples", "8", "--split", "held_out"]
    assert main(["evaluate", *arguments]) == 0
    values = json.loads((run.path / "evaluation/evaluation.json").read_text(encoding="utf-8"))
    assert list(values["parts"]) == ["Image tokenizer"]
    assert values["parts"]["Image tokenizer"]["features"] == "pixels averaged to 8 × 8"

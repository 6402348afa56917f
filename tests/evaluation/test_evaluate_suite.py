"""`dalle evaluate --suite`: what is printed and written."""

import json

from dalle_mini_impl.cli import main
from dalle_mini_impl.data.synthetic.panels import CHANGE_KINDS
from tests.tiny import tiny_run


def test_the_shapes_suite_is_written(tmp_path, capsys):
    run = tiny_run(tmp_path / "run")
    arguments = ["--run", str(run.path), "--suite", "shapes", "--per-task", "1"]
    arguments += ["--guidance", "1", "2", "--candidates", "2", "1", "--out", str(tmp_path)]
    assert main(["evaluate", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "Guidance 2: tasks" in printed
    assert "binding, held out" in printed
    assert "scene of three objects, seen" in printed
    values = json.loads((tmp_path / "shapes.json").read_text(encoding="utf-8"))
    assert len(values["prompts"]) == 2 * (8 + 3) * 2
    assert all(len(prompt["wrong"]) == 2 for prompt in values["prompts"])
    # Two objects are asked for by a task and by scenes: two groups.
    assert {c["trials"] for c in values["scores"] if "objects" in c["group"]} == {1}
    key = (2.0, "all tasks", "seen", "all claims", 2, "oracle")
    names = ("guidance", "group", "split", "score", "candidates", "ranking")
    (cell,) = (c for c in values["scores"] if tuple(c[name] for name in names) == key)
    assert cell["trials"] == 8
    assert cell["low"] <= cell["share"] <= cell["high"]
    page = (tmp_path / "shapes.html").read_text(encoding="utf-8")
    assert page.count("<img") > 5
    assert "http" not in page


def test_the_panels_suite_is_written(tmp_path, capsys):
    run = tiny_run(tmp_path / "run", data={"path": "panels"})
    arguments = ["--run", str(run.path), "--suite", "panels", "--per-task", "1"]
    arguments += ["--candidates", "2", "1", "--out", str(tmp_path)]
    assert main(["evaluate", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "Guidance 2: lower halves as asked" in printed
    assert "all changes, held out" in printed
    values = json.loads((tmp_path / "panels.json").read_text(encoding="utf-8"))
    assert len(values["prompts"]) == len(CHANGE_KINDS) * 2
    assert all(len(prompt["wrong"]) == 2 for prompt in values["prompts"])
    assert {row["trials"] for row in values["reconstructions"]} == {len(CHANGE_KINDS)}
    assert (tmp_path / "panels.html").read_text(encoding="utf-8").count("<img") > 5

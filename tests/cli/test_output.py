"""--json and --quiet work alike in every command, and a closed pipe is no error."""

import json
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from dalle_mini_impl.cli import COMMANDS, main
from dalle_mini_impl.cli.output import OutputOptions, output
from dalle_mini_impl.cli.train import show_results
from tests.tiny import tiny_run

ROOT = Path(__file__).resolve().parents[2]
MORE = {"train": ["configs/shapes.yaml"], "plan": ["configs/shapes.yaml"], "data": ["check"]}


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"completion"}))
def test_every_command_that_prints_results_has_the_options(name, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with suppress(SystemExit):
        main([name, *MORE.get(name, []), "--help"])
    shown = capsys.readouterr().out
    assert "--json" in shown
    assert "--quiet" in shown


def say_and_answer(options: OutputOptions) -> None:
    with output(options) as result:
        print("a note")
        print("a warning", file=sys.stderr)
        result({"answer": 1}, lambda: print("the answer is 1"))
        print("another note")


def test_text_and_notes_are_printed_together(capsys):
    say_and_answer(OutputOptions())
    assert capsys.readouterr() == ("a note\nthe answer is 1\nanother note\n", "a warning\n")


def test_json_is_all_there_is_on_standard_output(capsys):
    say_and_answer(OutputOptions(json=True))
    told = capsys.readouterr()
    assert json.loads(told.out) == {"answer": 1}
    assert told.err == "a note\na warning\nanother note\n"


def test_quiet_prints_the_result_only(capsys):
    say_and_answer(OutputOptions(quiet=True))
    assert capsys.readouterr() == ("the answer is 1\n", "")
    say_and_answer(OutputOptions(json=True, quiet=True))
    told = capsys.readouterr()
    assert (json.loads(told.out), told.err) == ({"answer": 1}, "")


def test_errors_are_printed_also_by_a_quiet_command(tmp_path, capsys):
    assert main(["rerank", "a red star", str(tmp_path / "none.png"), "--quiet"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "none.png: no such file" in told.err


def test_training_ends_with_its_report(tmp_path, capsys):
    run = tiny_run(tmp_path / "run", weights=())
    run.log("captions", 0, tokens=5)
    run.log("transformer", 20, loss=2.5)
    for options in (OutputOptions(quiet=True), OutputOptions(json=True)):
        with output(options) as result:
            show_results(result, SimpleNamespace(run=run, device="cpu"), False)
    text, document = capsys.readouterr().out.split("\n", 1)
    assert text == f"report: {run.path / 'report.html'}"
    values = json.loads(document)
    assert values["run"] == str(run.path)
    assert values["stages"]["transformer"] == {"loss": 2.5}
    assert not values["complete"]


def test_a_collection_is_reported_as_json(tmp_path, capsys):
    for number in range(3):
        Image.new("RGB", (40, 30)).save(tmp_path / f"{number}.png")
    (tmp_path / "0.txt").write_text("a red star\na star\n", encoding="utf-8")
    assert main(["data", "check", str(tmp_path), "--data.held-out", "0", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["images"] == {"train": 3, "validation": 0, "held_out": 0}
    assert report["sizes"] == [{"width": 40, "height": 30, "images": 3}]
    assert report["words"] == {"least": 2, "median": 2, "percentile_95": 2, "most": 3}
    assert sorted(report["without_caption"]) == ["1.png", "2.png"]


def test_a_closed_pipe_is_no_traceback():
    warnings.simplefilter("ignore", ResourceWarning)
    code = "from dalle_mini_impl.cli import main; raise SystemExit(main())"
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(
        [*command, "--help"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()  # As head does once it has its lines.
    _, told = process.communicate()
    assert told == ""
    assert process.returncode == 141

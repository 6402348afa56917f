"""The tour's cells run, one after the other, on a run with untrained models.

Without Jupyter: cells run here as Python, `!dalle` in this process, and the last expression of a
cell is shown as a notebook would. Only training is made shorter, and nothing is installed.
"""

import ast
import json
import re
import shlex
from pathlib import Path

from dalle_mini_impl.cli import main
from tests.tiny import tiny_run

TOUR = Path(__file__).resolve().parent.parent / "examples" / "tour.ipynb"
STAGES = ("image_tokenizer", "transformer", "clip")
SMALL = [
    *(f"--{stage}.training.compile=off" for stage in STAGES),
    *(f"--{stage}.training.batch-size=4" for stage in STAGES),
    *(f"--{stage}.training.previews=0" for stage in STAGES),
    "--image-tokenizer.autoencoder.width=32",
    "--transformer.depth=1",
    "--sampling.candidates=4",
    "--data.workers=1",
]


def code_cells() -> list[str]:
    cells = json.loads(TOUR.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def run_command(line: str) -> None:
    command = shlex.split(line)
    assert command.pop(0) == "dalle"
    if command[0] == "train":
        command = [re.sub(r"minutes$", "steps", word) for word in command] + SMALL
    assert main(command) == 0


def run_cell(cell: str, namespace: dict[str, object]) -> object:
    """Run a cell; returns the value that a notebook would show."""
    if cell.startswith("%pip install"):
        return None
    if cell.startswith("!"):
        for line in cell.replace("\\\n", " ").splitlines():
            run_command(line.removeprefix("!"))
        return None
    tree = ast.parse(cell)
    shown = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), namespace)
    if shown is None:
        return None
    return eval(compile(ast.Expression(shown.value), "cell", "eval"), namespace)


def test_the_tour_has_ten_cells():
    assert len(code_cells()) == 10


def test_every_cell_of_the_tour_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_run(tmp_path / "shapes")
    namespace: dict[str, object] = {}
    shown = [run_cell(cell, namespace) for cell in code_cells()]
    assert (tmp_path / "star.png").is_file()
    assert len(list(Path("my_images").glob("*.txt"))) == 300
    galleries = [value for value in shown if value is not None]
    assert len(galleries) == 6
    for gallery in galleries[:4] + galleries[5:]:
        assert "data:image/png;base64," in gallery._repr_html_()
    assert shown[-1][0].caption == "a gold block in the lower left"

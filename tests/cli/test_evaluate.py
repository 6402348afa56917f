"""Options that `dalle evaluate` refuses."""

import pytest

from dalle_mini_impl.cli import main
from tests.tiny import tiny_run


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--candidates", "0"], "--candidates 0: should be greater than or equal to 1"),
        (["--guidance", "-1"], "--guidance -1.0: should be greater than or equal to 0"),
        (["--per-task", "0"], "--per-task 0"),
        (["--features", "nowhere:embed"], "write MODULE:FUNCTION"),
        (["--suite", "shapes"], "was trained on other/images, not on shapes"),
    ],
)
def test_impossible_options_are_refused(tmp_path, capsys, options, complaint):
    run = tiny_run(tmp_path / "run", weights=(), data={"path": "other/images"})
    assert main(["evaluate", "--run", str(run.path), *options]) == 2
    assert complaint in capsys.readouterr().err

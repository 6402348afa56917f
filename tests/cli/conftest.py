"""A working directory for commands that would train."""

import sys
from types import SimpleNamespace

import pytest

STAGES = "dalle_mini_impl.training.run_stages"


@pytest.fixture
def stage_calls(tmp_path, monkeypatch):
    """A working directory with an experiment, and stages that only note how they were called."""
    (tmp_path / "tiny.yaml").write_text("transformer: {depth: 2, width: 64}\n", encoding="utf-8")
    calls = []

    def run_stages(run, stage, resume, tensorboard, show_results, side_by_side):
        calls.append((run, stage, resume, tensorboard))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, STAGES, SimpleNamespace(run_stages=run_stages))
    return calls

"""What a short `dalle sample` does not wait for."""

import subprocess
import sys
from pathlib import Path

from tests.tiny import tiny_run

ROOT = Path(__file__).resolve().parents[2]
UNNEEDED = (
    "accelerate datasets transformers rich psutil filelock torch._dynamo "
    "torch._inductor dalle_mini_impl.training dalle_mini_impl.evaluation "
    "dalle_mini_impl.sampling.compiled.packages dalle_mini_impl.sampling.compiled.cuda_graphs"
)


def sample(tmp_path, then):
    """Sample in a process of its own, then run some code there; returns the last line it prints."""
    run = tiny_run(tmp_path / "run")
    code = f"""
import sys
from dalle_mini_impl.cli import main
status = main(["sample", "a red star", "--run", {str(run.path)!r}, "--out", {str(tmp_path)!r}])
assert status == 0
{then}
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


def test_sampling_imports_nothing_that_it_does_not_need(tmp_path):
    imported = sample(tmp_path, "print(*sys.modules)").split()
    assert "torch" in imported
    assert sorted(set(UNNEEDED.split()) & set(imported)) == []


def test_the_collector_never_looks_through_torch(tmp_path):
    then = """
import gc
looked_at = {id(kept) for kept in gc.get_objects()}
print(id(sys.modules["torch"].__dict__) in looked_at, gc.isenabled())
"""
    assert sample(tmp_path, then) == "False True"


def test_no_section_looks_for_its_source_at_import():
    code = """
import inspect
def refuse(*_): raise AssertionError("read at import")
inspect.findsource = inspect.getsource = refuse
import dalle_mini_impl.experiment
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)

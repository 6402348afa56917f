"""One writer at a time on each stage of a run."""

import subprocess
import sys

import pytest

from dalle_mini_impl.runs.lock import writing
from dalle_mini_impl.runs.weights import RunError

HOLD = """
import sys
from pathlib import Path
from dalle_mini_impl.runs.lock import writing
with writing(Path(sys.argv[1]), "clip"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_is_told_who_the_first_is_until_that_is_killed(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == "held\n"
        named = rf"its clip stage is being trained already \(process {holder.pid} on .*: -c"
        with pytest.raises(RunError, match=named), writing(tmp_path, "clip"):
            pass
        with writing(tmp_path, "transformer"):  # another stage is free
            pass
    finally:
        holder.kill()
        holder.communicate()
    with writing(tmp_path, "clip"):
        pass


def test_a_lock_without_a_readable_note_is_a_lock(tmp_path):
    with writing(tmp_path, "clip"):
        (tmp_path / "locks" / "clip.json").write_text("{")
        with pytest.raises(RunError, match="has left no note"), writing(tmp_path, "clip"):
            pass

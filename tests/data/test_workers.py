"""Worker processes that decode images."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

KILLED = """
import time
from dalle_mini_impl.data import workers

class Source:
    reader = staticmethod(lambda row: row)
    def size(self): return 100_000
    def rows(self): return iter(range(100_000))

def work(example):
    time.sleep(0.01)
    return example

if __name__ == "__main__":
    for result in workers.map_examples(Source(), work, workers=3):
        print(result, flush=True)
"""


def test_workers_end_with_the_process_that_started_them(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED.replace("lambda row: row", "int"))
    path = os.pathsep.join([str(Path.cwd()), *sys.path])
    process = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert process.stdout.readline() == "0\n"
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) == 3
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 30
    while any(child.is_running() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [child for child in children if child.is_running()] == []

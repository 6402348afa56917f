"""The GPU script, tried at tiny size on the CPU: what it reports, not how fast anything is."""

import json
import sys

import pytest
import torch

from benchmarks import gpu, timing
from benchmarks.__main__ import main

TINY = ["gpu", "--tiny", "--device", "cpu", "--no-compile", "--in-process", "--sections"]


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    monkeypatch.setattr(timing, "SHORTEST", 0.0)
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)


def sections(tmp_path, *names):
    out = tmp_path / "gpu.json"
    main([*TINY, *names, "--out", str(out)])
    return json.loads(out.read_text(encoding="utf-8"))["sections"]


def test_training_and_decoding_are_measured(tmp_path):
    found = sections(tmp_path, "train", "decode")
    assert not any(section["error"] for section in found.values())
    assert [row["batch"] for row in found["train"]["rows"]] == [2, 4]
    for row in found["train"]["rows"]:
        assert row["plan GiB"] > 0
        assert row["MFU of the measured peak"] > 0
    cases = [row["case"] for row in found["decode"]["rows"] if "this project" in row[""]]
    assert cases == ["1 image", "2 images guided"]


def test_checks_pass_on_a_cpu(tmp_path):
    found = sections(tmp_path, "checks")["checks"]
    assert {row["check"]: row["result"] for row in found["rows"] if row["result"] != "ok"} == {}
    assert len(found["rows"]) == 5


def test_a_failing_section_keeps_its_rows_and_says_why(monkeypatch, tmp_path):
    def measure(options):
        yield {"batch": 1}
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(gpu.SECTIONS, "train", gpu.Section("Training", 1, measure))
    found = sections(tmp_path, "train")["train"]
    assert found["rows"] == [{"batch": 1}]
    assert found["error"] == "RuntimeError: no such kernel"
    assert "Failed: RuntimeError" in gpu.markdown("Training", found)


def test_a_section_is_stopped_after_its_time_and_a_crash_is_reported():
    hanging = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert gpu.run_in_child(hanging, 0.2)["error"] == "stopped after 0.2 s"
    assert gpu.run_in_child([sys.executable, "-c", "exit(3)"], 60)["error"] == "exit status 3"


def test_every_section_runs_in_a_process_of_its_own(monkeypatch, capsys, tmp_path):
    started = []

    def child(command, seconds):
        started.append(command[command.index("--sections") + 1])
        sections = {started[-1]: {"rows": [{"batch": 1.0}], "error": ""}}
        return {"environment": {}, "sections": sections, "error": "exit status 9"}

    monkeypatch.setattr(gpu, "run_in_child", child)
    record = gpu.run(gpu.GpuOptions(out=tmp_path / "gpu.json"))
    assert started == list(record["sections"]) == ["train", "decode", "checks"]
    shown = capsys.readouterr().out
    assert shown.count("| batch |") == shown.count("Failed: exit status 9") == 3

"""The parts of a short `dalle sample` and how they are printed; not how long they take."""

from benchmarks.__main__ import main
from benchmarks.first_minute import PARTS, measure_parts
from tests.tiny import tiny_run


def test_every_part_is_measured_and_printed(tmp_path, capsys):
    run = str(tiny_run(tmp_path / "run").path)
    parts = measure_parts(["sample", "a red star", "--run", run, "--out", str(tmp_path / "out")])
    assert sorted(parts) == sorted(PARTS)
    assert all(seconds > 0 for seconds in parts.values())
    main(["first-minute", "--run", run, "--repeats", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*PARTS, "sum", "dalle"]

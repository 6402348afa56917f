"""The benchmarks at tiny shapes, without peers: what they report, not how fast anything is."""

import json
from itertools import groupby

import pytest
import torch

from benchmarks import peers, tables, timing
from benchmarks.__main__ import main
from benchmarks.floors import Floors, decoding_floor
from benchmarks.shape import Shape, Work, training_flops
from benchmarks.timing import Contender, measure

SHAPE = {"depth": 1, "width": 32, "heads": 2, "ffn_width": 32, "text": 8, "grid": 2, "codes": 16}
QUICK = ["--quick", "--no-compile", "--repeats", "2", "--threads", "1"]
QUICK += [word for name, value in SHAPE.items() for word in (f"--{name}", str(value))]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def without_peers(monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setattr(timing, "SHORTEST", 0.0)
    monkeypatch.setattr(peers, "MODULES", dict.fromkeys(peers.MODULES, ("no_such_module",)))
    yield
    torch.set_num_threads(threads)


def measured(tmp_path, *arguments):
    out = tmp_path / "measured.json"
    main([*arguments, *QUICK, "--out", str(out)])
    return json.loads(out.read_text(encoding="utf-8"))


def rows_of(record, name):
    return next(table["rows"] for table in record["tables"] if table["name"] == name)


def test_decode_reports_every_case_and_what_is_absent(tmp_path, capsys):
    options = ["--images", "1", "2", "--captions", "2", "--guided", "2"]
    record = measured(tmp_path, "decode", *options, "--only", "eager")
    rows = rows_of(record, "decode")
    assert [row["case"] for row in rows] == [
        "1 image",
        "2 images",
        "2 images of 2 captions",
        "2 images guided",
    ]
    assert all(len(row["turns"]) == 2 and row["seconds"] > 0 for row in rows)
    assert all(row["parameters"] and row["fraction"] > 0 for row in rows)
    assert rows[1]["amount"] == 2 * 4
    assert {missing["peer"] for missing in record["absent"]} == set(peers.INSTALL)
    assert "pip install" in capsys.readouterr().out


def test_the_record_says_with_what_it_was_made(tmp_path):
    record = measured(tmp_path, "decode", "--images", "1", "--captions", "--guided")
    made = record["environment"]
    assert made["threads"] == 1
    assert made["torch"] == torch.__version__
    assert made["cpu"]
    assert made["command"][3] == "decode"
    assert any("GFLOP/s" in name for name in record["floors"])
    assert any("GB/s" in name for name in record["floors"])
    shown = tables.markdown(record)
    assert "| 1 image | fp32 | this project, eager |" in shown
    assert peers.INSTALL[peers.DALLE] in shown


def test_train_compares_optimizers(tmp_path):
    rows = rows_of(measured(tmp_path, "train", "--batch", "2", "--precisions", "fp32"), "train")
    assert [row["contender"] for row in rows] == [
        "this project, Muon + AdamW, eager",
        "this project, AdamW, eager",
    ]
    assert all(row["amount"] == 2 * (8 + 4) for row in rows)


def test_tokenizer_measures_steps_and_quality(tmp_path):
    options = ["--batch", "2", "--image-size", "16", "--precisions", "fp32", "--data-limit", "24"]
    options += ["--quality", "0.5", "--quality-batch", "2", "--only", "project, fsq, eager"]
    record = measured(tmp_path, "tokenizer", *options)
    (row,) = rows_of(record, "tokenizer")
    assert row["amount"] == 2
    assert row["floor"] > 0
    (row,) = rows_of(record, "quality")
    assert row["unit"] == "dB"
    assert 0 < row["amount"] < 100


def test_data_measures_preparing_batches_and_waiting(tmp_path):
    options = ["--images", "12", "--file-size", "32", "--image-size", "32", "--steps", "2"]
    record = measured(tmp_path, "data", *options, "--batch", "4")
    cases = {row["case"] for row in rows_of(record, "data-prepare")}
    assert cases == {"shapes", "PNG", "JPEG"}
    assert len(rows_of(record, "data-batches")) == 2
    assert all(0 <= row["amount"] <= 1 for row in rows_of(record, "data-waiting"))


def test_contenders_take_turns_and_are_compared():
    order = []
    contenders = [
        Contender("ours", lambda: order.append("o"), ours=True, floor=lambda: 1.0),
        Contender("peer", lambda: (order.append("p"), sum(range(20000)))),
    ]
    rows = {row.contender: row for row in measure("case", "fp32", contenders, 3, CPU)}
    assert "".join(name for name, _ in groupby(order)) == "op" * 4
    ours, peer = rows["ours"], rows["peer"]
    assert ours.ratios == {"peer": peer.seconds / ours.seconds}
    assert ours.fraction == pytest.approx(1.0 / ours.seconds)
    assert peer.ratios == {}


def test_who_is_slow_takes_fewer_turns():
    (row,) = measure("case", "fp32", [Contender("slow", lambda: None)], 4, CPU, patience=0.0)
    assert len(row.turns) == 1


def test_a_peer_that_fails_is_reported_and_an_own_failure_raised():
    def fail():
        raise RuntimeError("no such kernel")

    well = Contender("ours", lambda: None, ours=True)
    rows = measure("case", "fp32", [well, Contender("peer", fail)], 1, CPU)
    assert rows[1].seconds is None
    assert "no such kernel" in rows[1].note
    with pytest.raises(RuntimeError, match="no such kernel"):
        measure("case", "fp32", [Contender("ours", fail, ours=True)], 1, CPU)


def test_floors_count_the_work():
    shape = Shape(depth=1, width=2, text=3, grid=2)
    work = Work(parameters=0, blocks=10, image_head=4, text_head=5, attention_width=2)
    per_example = (3 + 4) * 10 + 4 * 4 + 3 * 5 + 1 * 2 * 7**2
    assert training_flops(shape, work, 8) == 8 * 6 * per_example
    floors = Floors(CPU, quick=True)
    one, many = (decoding_floor(shape, work, rows, 1, floors, "fp32") for rows in (1, 10**6))
    assert 0 < one < many

"""The ablations: variants trained for the same time and compared."""

import json
import math

import pytest

from benchmarks import clip_choices, leave_one_out
from benchmarks.leave_one_out import FULL, PLAIN, seconds_to, table
from benchmarks.variants import Point, Trained
from tests.tiny import tiny_run

CHOSEN = {"none": 0.2, "clip": 0.5, "oracle": 0.8}


def test_a_loss_is_reached_between_two_points():
    points = [Point(10, 1, 4.0), Point(20, 2, 2.0), Point(30, 3, 1.0)]
    assert seconds_to(3.0, points) == 15
    assert seconds_to(4.5, points) == 10
    assert seconds_to(0.5, points) == math.inf


def test_the_table_says_when_the_plain_loss_was_reached():
    def trained(*losses: float) -> Trained:
        points = [Point(50.0 * (at + 1), at, loss) for at, loss in enumerate(losses)]
        return Trained(0, points, {"1 seen": losses[-1] / 10})

    lines = table({FULL: [trained(2.0, 1.0)], PLAIN: [trained(4.0, 2.0)]}, 100)
    assert lines[2] == "| full | 1.000 | 1 | 50% | 10 % |"
    assert lines[3].startswith(f"| {PLAIN} | 2.000 | 1 | 100% |")


def test_the_distance_closed_is_between_no_ranking_and_the_oracle():
    chosen = {f"seen {by}": share for by, share in CHOSEN.items()}
    assert clip_choices.closed(chosen, "seen") == pytest.approx(0.5)
    equal = {f"seen {by}": 1.0 for by in CHOSEN}
    assert math.isnan(clip_choices.closed(equal, "seen"))


def test_variants_are_trained_judged_and_continued(tmp_path, capsys):
    run = tiny_run(tmp_path / "run").path
    first, out = tmp_path / "first.json", tmp_path / "out.json"
    settings = {"seconds": 1.0, "points": 1, "held_out": 8, "prompts": 1}
    leave_one_out.main(run, variants=(FULL,), seeds=(0,), out=first, **settings)
    leave_one_out.main(run, variants=(PLAIN,), seeds=(0,), out=out, beside=(first,), **settings)
    record = json.loads(out.read_text(encoding="utf-8"))["trained"]
    assert list(record) == [FULL, PLAIN]
    for (trained,) in record.values():
        assert trained["points"][-1]["step"] > 0
        assert set(trained["sampled"]) == {
            f"{n} {half}" for n in (1, 2) for half in ("seen", "held_out")
        }
    assert f"| {PLAIN} |" in capsys.readouterr().out


def test_clips_choose_among_the_same_candidates(tmp_path, capsys):
    run = tiny_run(tmp_path / "run").path
    names = ("no hard negatives", "no positions in the pool")
    settings = {"minutes": 0.01, "prompts": 1, "candidates": 2, "images": 8}
    clip_choices.main(run, variants=names, out=tmp_path / "out.json", **settings)
    record = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["trained"]
    unranked = [record[name][0]["chosen"]["seen none"] for name in names]
    assert unranked[0] == unranked[1]
    assert "| no positions in the pool |" in capsys.readouterr().out

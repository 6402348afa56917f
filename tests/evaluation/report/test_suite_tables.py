"""The tables of a suite, in the words of the shapes suite and of the panels suite."""

import pytest

from dalle_mini_impl.evaluation.report.panels_tables import panels_tables
from dalle_mini_impl.evaluation.report.shapes_tables import shapes_tables
from dalle_mini_impl.evaluation.report.suite_tables import Scores, reconstruction_table
from dalle_mini_impl.evaluation.suites.core import STRICT
from dalle_mini_impl.evaluation.suites.counting import CHOICES, Cell
from dalle_mini_impl.evaluation.suites.reconstructions import ReconstructionCount

SUCCESSES = {"none": 1, "clip": 3, "likelihood": 0, "ratio": 1, "both": 2, "oracle": 4}


def cells(group: str, score="all claims", guidance=2.0, bonus=0, split="seen"):
    return [
        Cell(guidance, group, split, score, count, ranking, SUCCESSES[ranking] + bonus, 5)
        for count in (1, 4)
        for ranking in CHOICES
    ]


@pytest.mark.parametrize(
    ("tables", "group", "title"),
    [
        (shapes_tables, "scene of two objects", "all claims at once"),
        (panels_tables, "outline", "lower halves as asked"),
    ],
)
def test_tables_compare_counts_and_rankings(tables, group, title):
    shown = [*cells(group), *(c for c in cells(group, STRICT, bonus=-1) if c.candidates == 4)]
    made = {table.title: table for table in tables(Scores(shown, "clip"))}
    best_of = made[f"Guidance 2: {title}, ranked by clip"]
    assert best_of.columns[1:] == ["first", "best of 4", "oracle of 4"]
    seen, held_out = best_of.rows
    assert seen == [f"{group}, seen", "20.0 % (4–62)", "60.0 % (23–88)", "80.0 % (38–96)"]
    assert held_out == [f"{group}, held out", "–", "–", "–"]
    strict = made[f"Guidance 2: {title}, strictly, ranked by clip"]
    assert strict.rows[0][1:] == ["–", "40.0 % (12–77)", "60.0 % (23–88)"]
    rankings = made[f"Guidance 2: {title} by ranking, best of 4"]
    assert rankings.columns[1:] == [*CHOICES, "closed by clip"]
    assert rankings.rows[0][-1] == "66.7 %"


def test_tasks_show_their_own_score_beside_all_claims():
    made = cells("color"), cells("color", "task", bonus=1), cells("color", STRICT, bonus=-2)
    scores = Scores([cell for part in made for cell in part], "clip")
    (table,) = (own for own in shapes_tables(scores) if own.title == "Guidance 2: tasks")
    shares = [cell.split(" (")[0] for cell in table.rows[0]]
    assert shares == ["color, seen", "40.0 %", "80.0 %", "100.0 %", "60.0 %", "20.0 %"]


def test_guidance_scales_are_compared_and_the_best_is_named():
    group = "scene of one object"
    scores = Scores([*cells(group, guidance=1.0, bonus=1), *cells(group)], "clip")
    assert scores.best_guidance([group]) == 1.0
    table = shapes_tables(scores)[0]
    assert table.title == "All claims at once by guidance, best of 4 by clip"
    assert [cell.split(" (")[0] for cell in table.rows[0][1:]] == ["80.0 %", "60.0 %"]


def test_the_guidance_scale_is_chosen_without_held_out_prompts():
    group = "scene of one object"
    seen = [*cells(group, guidance=2.0), *cells(group, guidance=1.0, bonus=1)]
    held_out = cells(group, guidance=2.0, bonus=1, split="held_out")
    scores = Scores([*seen, *held_out], "clip")
    assert scores.best_guidance([group]) == Scores(seen, "clip").best_guidance([group]) == 1.0
    table = shapes_tables(scores)[0]
    assert [row[0] for row in table.rows] == [f"{group}, seen"]
    assert "never by held-out" in table.note


def test_reconstructions_are_shown_with_their_interval():
    table = reconstruction_table([ReconstructionCount("held_out", "scene", 4, 5)])
    assert table.rows == [["held out", "scene", "80.0 % (38–96)"]]

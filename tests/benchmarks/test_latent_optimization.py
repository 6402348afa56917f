"""The benchmark of `dalle optimize` states an interval only for independent trials."""

from benchmarks.latent_optimization import shares, table
from dalle_mini_impl.evaluation.measures.intervals import wilson_interval


def test_only_independent_trials_have_an_interval():
    found = shares([{"object": True, "color": False}, {"object": True}])
    assert found["all attributes"] == {"right": 2, "of": 3, "share": 2 / 3}
    assert found["whole images"]["share"] == 0.5
    assert found["object"]["interval"] == wilson_interval(2, 2)
    scores = {"mean": 0.5, "error": 0.1}
    clips = {"own_clip": scores, "independent_clip": scores}
    lines = table({"random": {"rule": found, "by_chance": found, **clips}}).splitlines()
    assert "| all attributes | 67% |" in lines
    assert "| object | 100% (34% to 100%) |" in lines

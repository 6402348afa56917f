"""Curves over training steps, held-out losses beside those of training."""

import re

import pytest

from dalle_mini_impl.evaluation.report.curves import by_stage, curve, training_curves


def test_curves_skip_what_is_not_finite():
    assert curve("loss", [(1, 2.0), (2, float("nan"))]) == ""
    svg = curve("a < b", [(1, 2.0), (2, float("inf")), (3, 1.0)])
    assert "nan" not in svg
    assert "inf" not in svg
    assert "a &lt; b" in svg
    assert "(log)" in curve("loss", [(1, 100.0), (2, 1.0)])


def test_held_out_losses_are_drawn_beside_those_of_training():
    given = ("image", "another_caption", "no_caption")
    records = []
    for step in (20, 40):
        records.append({"stage": "transformer", "step": step, "image": 4.0, "waiting": 0.1})
        held_out = {f"held_out_{name}": 5.0 + at for at, name in enumerate(given)}
        records.append({"stage": "transformer", "step": step, "progress": step / 40} | held_out)
    html = "".join(training_curves(by_stage(records)))
    image, waiting = html.split("<figure>")[1:]
    assert image.count("<path") == 4
    for label in ("image", "held out", "held out, another&#x27;s caption", "held out, no caption"):
        assert f">{label}</span>" in image
    assert waiting.count("<path") == 1
    # All lines of a figure have one scale.
    assert [">7</text>" in image, ">4</text>" in image] == [True, True]


@pytest.mark.parametrize("high", [1.0, 0.0001234, 9_876_543.21, 1.234e-7])
def test_a_curve_has_room_for_the_labels_of_its_axes(high):
    svg = curve("loss", [(1_000, high), (1_234_567, high / 3)])
    for at, label in re.findall(r'<text x="([\d.]+)"[^>]*text-anchor="end">([^<]*)</text>', svg):
        assert float(at) >= 6 * len(label), label
    assert ">step 1,000<" in svg
    assert ">1,234,567<" in svg
    width = int(re.search(r'viewBox="0 0 (\d+) ', svg)[1])
    assert width <= 328  # What a telephone of 360 pixels leaves between the margins.

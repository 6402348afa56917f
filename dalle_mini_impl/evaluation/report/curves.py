"""A run's curves over its training steps, held-out losses beside those of training."""

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from dalle_mini_impl.evaluation.report.page import folded, heading, number, row, subheading
from dalle_mini_impl.runs.stages import STAGES

RATES = ("learning_rate", "gradient_norm", "examples_per_second", "waiting")
"""Logged beside the losses: shown folded."""

HELD_OUT = "held_out_"
"""Begins the names of what is measured on held-out images."""

GIVEN = {"another_caption": "held out, another's caption", "no_caption": "held out, no caption"}
"""The transformer's held-out loss of image codes with other captions than the true one."""

POINTS = 400
"""Points that a line is thinned to."""

Record = Mapping[str, Any]
Line = list[tuple[int, float | int]]
"""Values over steps."""


def training_curves(stages: Mapping[str, Sequence[Record]]) -> Iterator[str]:
    """The curves of every stage that has logged any; stages: their records in metrics.jsonl."""
    if any(stages.values()):
        yield heading("Curves")
    for stage, records in stages.items():
        lines = _lines(records)
        shown = {name: _figure(name, lines) for name in lines if not name.startswith(HELD_OUT)}
        losses = [svg for name, svg in shown.items() if name not in RATES]
        rest = [svg for name, svg in shown.items() if name in RATES]
        if any(losses):
            yield subheading(stage) + row(losses)
        if any(rest):
            yield folded(f"{stage}: rates and gradients", row(rest))


def by_stage(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The records of metrics.jsonl of each stage that has any, in the order of training."""
    stages = {stage: [r for r in records if r["stage"] == stage] for stage in STAGES}
    return {stage: own for stage, own in stages.items() if own}


def curve(title: str, line: Line, beside: Mapping[str, Line] | None = None) -> str:
    """A small SVG of values over steps, logarithmic for a wide range; "" under two points.

    beside: further lines by name; those without points are left out.
    """
    named = {title: line} | dict(beside or {})
    lines = {name: [(x, y) for x, y in own if math.isfinite(y)] for name, own in named.items()}
    if len(lines[title]) < 2:
        return ""
    lines = {name: _thinned(own) for name, own in lines.items() if own}
    steps, values = zip(*(point for own in lines.values() for point in own), strict=True)
    left, right, low, high = min(steps), max(steps), min(values), max(values)
    logarithmic = low > 0 and high / low > 20
    scale = math.log if logarithmic else float
    bottom, span = scale(low), (scale(high) - scale(low)) or 1.0
    width, height = 230, 110
    highest, lowest = number(high), number(low)
    # The labels of the axis need about 6 pixels a character.
    margin = 8 + 6 * max(4, len(highest), len(lowest))
    paths, labels = [], []
    for at, (name, own) in enumerate(lines.items()):
        points = " ".join(
            f"{margin + width * (x - left) / ((right - left) or 1):.1f},"
            f"{8 + height * (1 - (scale(y) - bottom) / span):.1f}"
            for x, y in own
        )
        paths.append(f'<path class="line{at}" d="M{points}"/>')
        labels.append(f'<span class="line{at}">{escape(name)}</span>: {number(own[-1][1])}')
    labels[0] += " (log)" if logarithmic else ""
    base = 8 + height
    return (
        f'<figure><svg viewBox="0 0 {margin + width + 12} {height + 30}" '
        f'width="{margin + width + 12}" role="img" aria-label="{escape(title, quote=True)}">'
        f'<line x1="{margin}" y1="{base}" x2="{margin + width}" y2="{base}"/>'
        f'<line x1="{margin}" y1="8" x2="{margin}" y2="{base}"/>'
        f'<text x="{margin - 4}" y="14" text-anchor="end">{highest}</text>'
        f'<text x="{margin - 4}" y="{base}" text-anchor="end">{lowest}</text>'
        f'<text x="{margin}" y="{base + 14}">step {left:,.0f}</text>'
        f'<text x="{margin + width}" y="{base + 14}" text-anchor="end">{right:,.0f}</text>'
        f"{''.join(paths)}</svg><figcaption>{'<br>'.join(labels)}</figcaption></figure>"
    )


def is_number(value: Any) -> bool:
    """Whether a logged value can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _thinned(line: Line) -> Line:
    """About POINTS of its points, the last one among them."""
    return [*line[:: math.ceil(len(line) / POINTS)], line[-1]]


def _lines(records: Sequence[Record]) -> dict[str, Line]:
    """The values of every logged number with their steps."""
    lines: dict[str, list[tuple[int, float | int]]] = {}
    for record in records:
        for name, value in record.items():
            if is_number(value) and name not in ("step", "progress"):
                lines.setdefault(name, []).append((record["step"], value))
    return lines


def _figure(name: str, lines: Mapping[str, Line]) -> str:
    """The line of training and, where there are any, those of held-out images."""
    beside = {"held out": lines.get(HELD_OUT + name, [])}
    if name == "image":
        beside |= {label: lines.get(HELD_OUT + given, []) for given, label in GIVEN.items()}
    return curve(name, lines[name], beside)

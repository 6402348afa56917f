"""metrics.jsonl is read back as far as it is good."""

import pytest

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.runs.metrics import MetricsLog


@pytest.mark.parametrize(
    "line",
    [
        '{"stage": "clip", "step": null}',
        '{"stage": null, "step": 1}',
        '{"stage": "clip", "step": "1"}',
        '{"stage": ["clip"], "step": 1}',
        "null",
        "[" * 100_000,
        '{"step": 1}',
    ],
    ids=range(7),
)
def test_a_line_that_is_none_is_named(tmp_path, line):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append("clip", 0, loss=float("nan"))
    log.append("clip", 1, loss=0.5)
    assert [record["loss"] for record in log.records()] == [None, 0.5]
    with log.path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(ConfigError, match=r"metrics\.jsonl, line 3: not a metrics line .*; delete"):
        log.records()

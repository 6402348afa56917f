"""YAML that is made to cost time and memory, or to surprise: one short line each, at once."""

import time
import tracemalloc
from pathlib import Path

import pytest

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.experiment import load_experiment

LAUGHS = "a: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (LAUGHS, "line 5: more than 10,000 values, aliases counted in full"),
        ("data: &a [*a]", "line 1: *a stands for nothing before it"),
        ("data: *nothing", "line 1: *nothing stands for nothing before it"),
        ("a: " + "[" * 3000, "line 1: nested more than 20 deep"),
        ("data: {image_size: " + 5000 * "9" + "}", "a number of 5,000 digits"),
        ("data: {image_size: 0x" + 5000 * "f" + "}", "a number of 5,002 digits"),
        ("data: {image_size: !!int word}", "'word' is no int"),
        ("data: {image_size: !!float word}", "'word' is no float"),
        ("data: {stream: !!bool word}", "'word' is no bool"),
        ("data: {path: !!timestamp 2024-13-45}", "!timestamp is no kind of value here"),
        ("data: {path: !!binary aGVsbG8=}", "!binary is no kind of value here"),
        (
            "data: !!python/object/apply:os.system [ls]",
            "!python/object/apply:os.system is no kind of value here",
        ),
        ("? [a, b]\n: 1", "the name of a setting must be text"),
        ("data: {image_size: 2024-01-01}", "data.image_size = '2024-01-01': "),
        ("data: {path: [" + "x, " * 9000 + "x]}", "… (45,005 characters)"),
        ("\n".join(f"wrong{i}: 1" for i in range(1999)), "and 1,989 more"),
        ("? " + "w" * 100_000 + "\n: 1", "remove it"),
        ("1: 2\nnull: 3", "the name of a setting must be text"),
        ("data: {path: \0}", "characters are not allowed"),
        ("# " + 2**20 * "x", "more than 1,048,576 characters"),
        ("<<: 5", "expected a mapping"),
    ],
    ids=range(21),
)
def test_one_short_message_at_once(tmp_path, text, complaint):
    file = tmp_path / "hostile.yaml"
    file.write_text(text)
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(ConfigError) as caught:
            load_experiment(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert complaint in message
    assert message.startswith(str(file))
    assert len(message) < 3000
    assert message.count("\n") <= 11
    assert time.process_time() - start < 5  # far less, but for tracing
    assert peak < 50e6


def test_a_date_is_text_and_aliases_may_be_used(tmp_path):
    file = tmp_path / "plain.yaml"
    file.write_text(
        "data: {path: 2024-01-01}\n"
        "transformer: {training: &t {steps: 7, batch_size: 3}}\n"
        "clip: {training: {<<: *t, steps: 9}}\n"
    )
    experiment = load_experiment(file)
    assert experiment.data.path == "2024-01-01"
    assert experiment.clip.training.batch_size == 3
    assert (experiment.transformer.training.steps, experiment.clip.training.steps) == (7, 9)


@pytest.mark.parametrize("path", ["a\0b.yaml", "x" * 5000, "~nobody-of-this-name/a.yaml"])
def test_paths_that_cannot_be(path):
    with pytest.raises(ConfigError, match="not a readable file"):
        load_experiment(Path(path))


def test_a_file_without_an_end_is_not_read_whole():
    if not Path("/dev/zero").exists():
        pytest.skip("this system has no /dev/zero")
    with pytest.raises(ConfigError, match="more than 1,048,576 characters"):
        load_experiment("/dev/zero")

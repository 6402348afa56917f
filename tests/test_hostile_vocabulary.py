"""A vocabulary's file from elsewhere is refused in a line, whatever it does to the library."""

import json

import numpy as np
import pytest

from dalle_mini_impl.captions import CaptionsConfig, CaptionTokenizer
from dalle_mini_impl.config import ConfigError


@pytest.fixture(scope="module")
def description(tmp_path_factory):
    file = tmp_path_factory.mktemp("vocabulary") / "v.json"
    CaptionTokenizer.train(["a red heart"] * 3, CaptionsConfig(vocabulary_size=300)).save(file)
    return json.loads(file.read_text("utf-8"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"truncation": None}, "missing in its section truncation"),
        ({"truncation": {"max_length": 10**12}}, "missing in its section truncation, or"),
        ({"padding": {"strategy": {"Fixed": 10**12}}}, "missing in its section padding, or"),
        ({"padding": {"strategy": "BatchLongest"}}, "missing in its section padding, or"),
        ({"normalizer": {"type": "None"}}, "damaged caption vocabulary"),
        ({"decoder": 3}, "damaged caption vocabulary"),
        ({"pre_tokenizer": None, "model.merges": [["a", "nothing"]]}, "damaged caption vocab"),
        ({"model.vocab": {"∅": 0, "a": 2**40}}, "the ids must be 0 to 1, each once"),
        ({"model.vocab": {"∅": 0, "a": 0}}, "the ids must be 0 to 1, each once"),
        ({"model.vocab": {"∅": 0, "a": "1"}}, "the ids must be 0 to 1, each once"),
        ({"model.vocab": {"∅": False}}, "the ids must be 0 to 0, each once"),
    ],
    ids=range(11),
)
def test_damage_is_named(description, tmp_path, change, complaint):
    changed = json.loads(json.dumps(description))
    for name, value in change.items():
        *sections, last = name.split(".")
        target = changed[sections[0]] if sections else changed
        target[last] = value
    file = tmp_path / "v.json"
    file.write_text(json.dumps(changed), "utf-8")
    with pytest.raises(ConfigError, match=complaint) as caught:
        CaptionTokenizer.load(file)
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("text", ["[" * 100_000, '{"model": ' + "9" * 5000 + "}", "[]", "\0"])
def test_text_that_is_no_vocabulary(tmp_path, text):
    (tmp_path / "v.json").write_text(text)
    with pytest.raises(ConfigError, match=r"v\.json: not a "):
        CaptionTokenizer.load(tmp_path / "v.json")


def test_a_panic_of_the_library_is_an_error_of_the_file(description, tmp_path, monkeypatch):
    class PanicException(BaseException):
        """As pyo3_runtime's, which is no Exception."""

    def panics(text):
        raise PanicException("index out of bounds")

    file = tmp_path / "v.json"
    file.write_text(json.dumps(description), "utf-8")
    assert CaptionTokenizer.load(file).encode(["a \udcff heart"]).dtype == np.int64
    monkeypatch.setattr("dalle_mini_impl.captions.Tokenizer.from_str", panics, raising=True)
    with pytest.raises(ConfigError, match=r"damaged caption vocabulary .index out of bounds"):
        CaptionTokenizer.load(file)

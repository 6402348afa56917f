"""Captions are encoded into ids and decoded again."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dalle_mini_impl.captions import PAD, CaptionsConfig, CaptionTokenizer, clean_caption
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.data.collections.columns import Columns

ROOT = Path(__file__).resolve().parent.parent
CAPTIONS = ["a red heart", "Two blue stars above a red heart", "three red stars"] * 4


def trained(**settings) -> CaptionTokenizer:
    return CaptionTokenizer.train(CAPTIONS, CaptionsConfig(**settings))


@pytest.mark.parametrize(
    "text",
    [
        "a red heart",
        "",
        "Héllo ∅ Жук",
        "🧑🏽‍🚀",
        "<pad> [PAD] \x00",
        "漢字 ﷽",
        "é",
    ],
)
def test_any_unicode_is_decoded_exactly(text):
    tokenizer = trained(lowercase=False, context=64)
    assert tokenizer.decode(tokenizer.encode([text])[0]) == text


NFC, NFD = "caf\u00e9 au lait", "cafe\u0301 au lait"


@pytest.mark.parametrize(
    "text", [NFD, " caf\u00e9  au lait\n", "caf\u00e9\u00a0au\u2009lait", "cafe\u0301\tau lait"]
)
@pytest.mark.parametrize("dropout", [0.0, 1e-12])
def test_spellings_of_one_text_have_the_same_ids(text, dropout):
    tokenizer = trained(context=64, dropout=dropout)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(tokenizer.encode([text], rng), tokenizer.encode([NFC], rng))
    assert tokenizer.decode(tokenizer.encode([text])[0]) == NFC == clean_caption(text)
    columns = Columns(image="image", caption="text", label=None)
    assert columns.captions({"text": [text, NFC]}, ()) == (NFC,)


def test_lower_casing_is_saved_with_the_vocabulary(tmp_path):
    trained(lowercase=True).save(tmp_path / "captions.json")
    tokenizer = CaptionTokenizer.load(tmp_path / "captions.json")
    np.testing.assert_array_equal(*(tokenizer.encode([t]) for t in ("Red HEART", "red heart")))
    assert tokenizer.decode(tokenizer.encode(["Red HEART"])[0]) == "red heart"
    kept = trained(lowercase=False)
    assert (kept.encode(["Red"]) != kept.encode(["red"])).any()


def test_ids_are_padded_and_cut_and_text_never_becomes_padding():
    tokenizer = trained(context=6)
    ids = tokenizer.encode(["red", "∅ <pad>", "a red heart " * 9])
    assert ids.dtype == np.int64
    assert ids.shape == (3, 6)
    assert ids[0].tolist() == [ids[0, 0], PAD, PAD, PAD, PAD, PAD]
    assert (ids[1:] != PAD).all()
    assert (tokenizer.encode([""]) == PAD).all()
    assert tokenizer.encode([]).shape == (0, 6)
    assert ids.max() < tokenizer.vocabulary_size


def test_a_word_is_the_same_token_at_the_start_and_later():
    ids = trained().encode(["red heart", "heart red"])
    assert ids[0, :2].tolist() == ids[1, 1::-1].tolist()


def test_half_a_character_can_be_encoded():
    assert trained(context=8).encode(["\ud83d x"]).shape == (1, 8)


def test_truncation_is_counted():
    tokenizer = trained(context=4)
    assert tokenizer.count_truncated(["red", "a red heart", "an unheard-of caption", "x" * 50]) == 2


def test_merges_are_skipped_only_on_request():
    tokenizer = trained(dropout=0.5)
    plain = tokenizer.encode(CAPTIONS)
    np.testing.assert_array_equal(plain, tokenizer.encode(CAPTIONS))
    rng = np.random.default_rng(0)
    dropped = [tokenizer.encode(CAPTIONS, rng) for _ in range(4)]
    assert any((ids != plain).any() for ids in dropped)
    assert [tokenizer.decode(row) for row in dropped[0][:1]] == ["a red heart"]
    np.testing.assert_array_equal(plain, tokenizer.encode(CAPTIONS))
    again = np.random.default_rng(0)
    np.testing.assert_array_equal(dropped, [tokenizer.encode(CAPTIONS, again) for _ in range(4)])


@pytest.mark.parametrize("dropout", [0.0, 1e-12])
def test_without_skipped_merges_ids_are_those_of_the_library(dropout):
    texts = [*CAPTIONS, "", "Größe 🙂 naïve", "a red heartred heart " * 9]
    tokenizer = trained(dropout=dropout, context=20)
    ids = tokenizer.encode(texts, np.random.default_rng(0))
    np.testing.assert_array_equal(ids, tokenizer.encode(texts))


def test_skipping_nearly_all_merges_gives_bytes():
    tokenizer = trained(dropout=1 - 1e-12, context=40)
    (ids,) = tokenizer.encode(["a red heart"], np.random.default_rng(0))
    assert (ids != 0).sum() == len(" a red heart")
    assert tokenizer.decode(ids) == "a red heart"


def test_context_and_dropout_are_saved(tmp_path):
    tokenizer = trained(context=12, dropout=0.25)
    tokenizer.save(tmp_path / "captions.json")
    loaded = CaptionTokenizer.load(tmp_path / "captions.json")
    assert (loaded.context, loaded.dropout) == (12, 0.25)
    assert loaded.vocabulary_size == tokenizer.vocabulary_size
    np.testing.assert_array_equal(loaded.encode(CAPTIONS), tokenizer.encode(CAPTIONS))


def test_training_is_repeatable_and_bounded(tmp_path):
    for name in ("a", "b"):
        trained(vocabulary_size=262).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert trained(vocabulary_size=262).vocabulary_size == 262
    assert trained(vocabulary_size=262).encode(CAPTIONS).shape == (12, 32)


@pytest.mark.parametrize("name", ["shapes", "emoji", str(ROOT / "tokenizers" / "emoji.json")])
def test_a_configured_vocabulary_gets_the_configured_context(name):
    config = CaptionsConfig(vocabulary=name, context=9, dropout=0.1)
    tokenizer = CaptionTokenizer.from_config(config)
    assert (tokenizer.context, tokenizer.dropout) == (9, 0.1)
    caption = "a red heart"
    ids = tokenizer.encode([caption])[0]
    assert tokenizer.decode(ids) == caption
    assert np.count_nonzero(ids) <= 4


def test_without_a_configured_vocabulary_one_is_trained():
    tokenizer = CaptionTokenizer.from_config(CaptionsConfig(context=8), CAPTIONS)
    assert np.count_nonzero(tokenizer.encode(["a red heart"])) == 3


def test_unknown_vocabulary_lists_the_shipped_ones():
    with pytest.raises(ConfigError, match=r"captions\.vocabulary: 'shape' .*emoji, shapes"):
        CaptionTokenizer.from_config(CaptionsConfig(vocabulary="shape"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("not json", "not a readable"),
        ("[1]", "not a byte-level BPE"),
        ('{"model": {"type": "WordPiece"}}', "not a byte-level BPE"),
        ('{"model": {"type": "BPE", "vocab": {"a": 0}}}', "padding token"),
        ('{"model": {"type": "BPE", "vocab": {"∅": 0}}}', "context is missing"),
        (
            json.dumps(
                {"model": {"type": "BPE", "vocab": {"∅": 0}}, "truncation": 1, "padding": 1}
            ),
            "context is missing",
        ),
    ],
)
def test_wrong_files_are_refused_by_name(tmp_path, text, complaint):
    path = tmp_path / "wrong.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"wrong\.json.*{complaint}"):
        CaptionTokenizer.load(path)
    with pytest.raises(ConfigError, match=r"missing\.json: not a readable"):
        CaptionTokenizer.load(tmp_path / "missing.json")


def test_the_vocabularies_do_not_shadow_the_library():
    code = "import tokenizers; print(tokenizers.Tokenizer, tokenizers.__file__)"
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "site-packages" in run.stdout
    assert not (ROOT / "tokenizers" / "__init__.py").exists()

"""Sampled captions keep the prompt, consist of encodable words and depend on their seed."""

import math
import re

import pytest
import torch

from dalle_mini_impl.captions import BLANK, PAD_TOKEN, CaptionsConfig, CaptionTokenizer
from dalle_mini_impl.models.dalle import Dalle, TransformerConfig
from dalle_mini_impl.sampling.caption_sampler import log_probability, sample_captions

COLLECTION = ["a small red heart", "a small red ring", "a reddish star", "red, green and 🧑🏽‍🚀"]
CONTEXT = 10


@pytest.fixture(scope="module")
def tokenizer() -> CaptionTokenizer:
    config = CaptionsConfig(vocabulary_size=400, context=CONTEXT)
    return CaptionTokenizer.train(COLLECTION * 3, config)


def favoring(tokenizer: CaptionTokenizer, captions: list[str], strength: float = 12.0):
    """A model of captions that has memorized these captions."""
    known = torch.from_numpy(tokenizer.encode(captions))

    def text_logits(ids: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*ids.shape, tokenizer.vocabulary_size)
        for row in range(len(ids)):
            for caption in known:
                for place in range(ids.shape[1]):
                    if torch.equal(ids[row, :place], caption[:place]):
                        logits[row, place, caption[place]] = strength
        return logits

    return text_logits


def uniform(tokenizer: CaptionTokenizer):
    return lambda ids: torch.zeros(*ids.shape, tokenizer.vocabulary_size)


def babbling(tokenizer: CaptionTokenizer):
    """Every token of plain letters as likely as any other."""
    plain = [
        all(c.isascii() or c == BLANK for c in s) or s == PAD_TOKEN for s in tokenizer.spellings()
    ]
    logits = torch.where(torch.tensor(plain), 0.0, -30.0)
    return lambda ids: logits.expand(*ids.shape, -1)


def sampled(tokenizer, model, prompt, count=8, **settings) -> list[str]:
    found = sample_captions(tokenizer, model, prompt, range(count), **settings)
    return [caption.caption for caption in found]


def test_all_continuations_are_sampled_and_the_most_likely_at_temperature_zero(tokenizer):
    model = favoring(tokenizer, ["a small red heart", "a small red ring", "a reddish star"])
    found = sampled(tokenizer, model, "a small red", 40)
    assert {"a small red heart", "a small red ring"} <= set(found)
    assert len(set(sampled(tokenizer, model, "a small red", 4, temperature=0.0))) == 1


@pytest.mark.parametrize("prompt", ["a small re", "a small r", "a sm", "a small ", "a", ""])
def test_a_prompt_may_end_anywhere_in_a_word(tokenizer, prompt):
    """The token "re" begins no caption, as "red" is one token."""
    model = favoring(tokenizer, ["a small red heart"])
    assert sampled(tokenizer, model, prompt, 3, temperature=0.0) == ["a small red heart"] * 3


def test_a_blank_at_the_end_ends_the_word(tokenizer):
    model = favoring(tokenizer, ["a reddish star", "a red ring"])
    assert "a reddish star" in sampled(tokenizer, model, "a red", 20)
    for prompt in ("a red ", "a red   "):
        found = sampled(tokenizer, model, prompt, 20)
        assert "a red ring" in found
        assert all(caption.startswith("a red ") for caption in found)


@pytest.mark.parametrize("prompt", ["a small", "red, gre", "🧑", ""])
def test_even_a_random_model_gives_captions_as_encoding_gives_them(tokenizer, prompt):
    model = babbling(tokenizer)
    texts = 0
    for caption in sample_captions(tokenizer, model, prompt, range(20)):
        assert caption.caption.startswith(prompt)
        if re.search("\ufffd|  | $", caption.caption):
            continue  # cut inside a character; runs of blanks are split in their own way
        texts += 1
        ids = torch.from_numpy(tokenizer.encode([caption.caption]))
        expected = log_probability(model(ids), ids).item()
        assert caption.log_probability == pytest.approx(expected, rel=1e-5)
    assert texts > 5


def test_a_caption_ends_at_the_first_pad_and_never_exceeds_the_context(tokenizer):
    endless = favoring(tokenizer, ["a a a a a a a a a a a a a a"], 50)
    assert sampled(tokenizer, endless, "a a", 1) == [" ".join("a" * CONTEXT)]
    ended = favoring(tokenizer, ["a small red"], 50)
    assert sampled(tokenizer, ended, "a small red", 1) == ["a small red"]
    full = " ".join("a" * CONTEXT)
    assert sampled(tokenizer, endless, full, 1) == [full]
    with pytest.raises(ValueError, match="more tokens than the 10"):
        sampled(tokenizer, endless, full + " a")


def test_a_caption_depends_on_its_seed_alone(tokenizer):
    model = uniform(tokenizer)
    together = sample_captions(tokenizer, model, "a", [5, 6, 7])
    assert sample_captions(tokenizer, model, "a", [6]) == [together[1]]
    assert len({caption.caption for caption in together}) == 3
    far = sample_captions(tokenizer, model, "a", [6, 6 + 2**32, 6 + 2**64])
    assert len({caption.caption for caption in far}) == 3


def test_the_log_probability_is_of_the_tokens_and_the_end(tokenizer):
    ids = torch.from_numpy(tokenizer.encode(["a red", "a " * CONTEXT]))
    logits = uniform(tokenizer)(ids)
    each = -math.log(tokenizer.vocabulary_size)
    assert log_probability(logits, ids).tolist() == pytest.approx([3 * each, CONTEXT * each])


def test_top_k_of_one_takes_the_most_likely(tokenizer):
    model = favoring(tokenizer, ["a reddish star"], 1.0)
    assert sampled(tokenizer, model, "a red", 5, top_k=1) == ["a reddish star"] * 5
    with pytest.raises(ValueError, match=r"temperature is -1\.0"):
        sampled(tokenizer, model, "a", temperature=-1.0)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["full", "dalle"])
def test_text_alone_gives_the_logits_of_the_whole_stream(attention):
    torch.manual_seed(0)
    config = TransformerConfig(depth=4, width=32, heads=2, ffn_width=48, attention=attention)
    model = Dalle(config, 50, 6, 32, 4).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    captions = torch.randint(50, (3, 6))
    whole = model(captions, torch.randint(32, (3, 16))).text
    torch.testing.assert_close(model.text_logits(captions), whole)

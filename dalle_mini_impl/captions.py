"""Captions as integer ids: a byte-level BPE, trained on the collection or loaded from a file.

Every byte has a token, so any Unicode text can be encoded. It is decoded as `clean_caption` writes
it, except for case if the vocabulary lower-cases. Id 0 is PAD, which no text encodes to: it pads
captions on the right, so the first PAD ends the text, and the null caption consists of PAD alone.
"""

import json
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, SupportsInt

import numpy as np
from jaxtyping import Int
from pydantic import Field
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from dalle_mini_impl.config import Config, ConfigError
from dalle_mini_impl.shipped.folders import shipped

PAD = 0
PAD_TOKEN = "∅"
"""Not one of the 256 characters that stand for bytes, so no text can produce it."""
MAX_CONTEXT = 65_536
"""Ids per caption at most; a vocabulary's file could ask for more than the memory holds."""
BLANK = "Ġ"
"""The character that stands for a space; the first token of a word begins with it."""


class CaptionsConfig(Config):
    """How captions become ids."""

    vocabulary: str | None = None
    """A vocabulary's JSON file, or the name of one in `tokenizers/`; null trains one."""
    vocabulary_size: int = Field(1024, ge=257, le=2**20)
    """Largest number of entries of a trained vocabulary (256 bytes and PAD at least)."""
    context: int = Field(32, gt=0, le=2**16)
    """Ids per caption; longer captions are cut, shorter ones padded."""
    lowercase: bool = True
    """Lower-case captions; a vocabulary that is loaded keeps the setting it was trained with."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Probability that a merge is skipped in training (BPE-dropout)."""


class CaptionTokenizer:
    """Encodes captions into `context` ids each, and decodes ids into text.

    Encoding applies BPE-dropout (Provilkov et al. 2020, arXiv 1910.13267) only if it is given a
    random generator.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._description = tokenizer.to_str()
        self._plain = tokenizer
        model = json.loads(self._description)["model"]
        self.dropout: float = model["dropout"] or 0.0
        self._plain.model.dropout = None
        self._ids: dict[str, int] = model["vocab"]
        self._ranks = {tuple(pair): rank for rank, pair in enumerate(model["merges"])}
        self.context = int((tokenizer.truncation or {})["max_length"])
        """Ids per caption."""

    @classmethod
    def train(cls, captions: Iterable[str], config: CaptionsConfig) -> "CaptionTokenizer":
        """Learn at most `config.vocabulary_size` entries from `captions`."""
        tokenizer = Tokenizer(models.BPE())
        # With a space before it, the first word gets the same token as anywhere else.
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Lowercase()] * config.lowercase + [normalizers.Prepend(" ")]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
        trainer = trainers.BpeTrainer(
            vocab_size=config.vocabulary_size,
            min_frequency=2,
            special_tokens=[PAD_TOKEN],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(map(clean_caption, captions), trainer)
        # The library would look for an added token in text; PAD must stay a plain entry.
        description = json.loads(tokenizer.to_str()) | {"added_tokens": []}
        return cls._configured(description, config, "the trained vocabulary")

    @classmethod
    def load(cls, path: str | Path) -> "CaptionTokenizer":
        """Read a saved vocabulary. ConfigError if the file is missing or is not one."""
        return cls(_build(_read(Path(path)), path))

    @classmethod
    def from_config(
        cls, config: CaptionsConfig, captions: Iterable[str] = ()
    ) -> "CaptionTokenizer":
        """The configured vocabulary, or one trained on `captions` if none is configured."""
        if config.vocabulary is None:
            return cls.train(captions, config)
        path = find_vocabulary(config.vocabulary)
        return cls._configured(_read(path), config, path)

    @classmethod
    def _configured(
        cls, description: dict[str, Any], config: CaptionsConfig, origin: str | Path
    ) -> "CaptionTokenizer":
        description["model"]["dropout"] = config.dropout or None
        tokenizer = _build(description, origin)
        tokenizer.enable_truncation(config.context)
        tokenizer.enable_padding(pad_id=PAD, pad_token=PAD_TOKEN, length=config.context)
        return cls(tokenizer)

    def save(self, path: str | Path) -> None:
        """Write vocabulary, context and dropout as JSON of the tokenizers library."""
        Path(path).write_text(self._description, encoding="utf-8")

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, including PAD."""
        return int(self._plain.get_vocab_size())

    def encode(
        self, captions: Sequence[str], rng: np.random.Generator | None = None
    ) -> Int[np.ndarray, "b t"]:
        """Ids (int64) of each caption, cut to the context and padded on the right with PAD.

        Captions and prompts that `clean_caption` makes equal get the same ids.
        rng: skips merges at random, as configured by `dropout`. Without it, none is skipped.
        """
        if rng is not None and self.dropout:
            ids = np.full((len(captions), self.context), PAD, np.int64)
            for row, caption in zip(ids, captions, strict=True):
                words = self.words(clean_caption(caption))
                tokens = [t for word in words for t in self._dropped_out(word, rng)]
                tokens = tokens[: self.context]
                row[: len(tokens)] = [self._ids[token] for token in tokens]
            return ids
        rows = self._plain.encode_batch_fast([clean_caption(caption) for caption in captions])
        return np.array([row.ids for row in rows], np.int64).reshape(-1, self.context)

    def _dropped_out(self, word: str, rng: np.random.Generator) -> list[str]:
        """A word's tokens with BPE-dropout, algorithm 1 of the paper.

        Before every merge, each possible one is excluded with probability `dropout`.
        """
        tokens = list(word)
        while True:
            keep = rng.random(len(tokens)) >= self.dropout
            merges = [
                (self._ranks[pair], at)
                for at, pair in enumerate(pairwise(tokens))
                if keep[at] and pair in self._ranks
            ]
            if not merges:
                return tokens
            _, at = min(merges)
            tokens[at : at + 2] = [tokens[at] + tokens[at + 1]]

    def count_truncated(self, captions: Iterable[str]) -> int:
        """How many captions are longer than the context and are cut."""
        rows = self._plain.encode_batch([clean_caption(caption) for caption in captions])
        return sum(bool(row.overflowing) for row in rows)

    def words(self, text: str) -> list[str]:
        """The words, each with the space before it, in characters that stand for bytes.

        No token crosses their boundaries.
        """
        normalized = self._plain.normalizer.normalize_str(_valid_unicode(text))
        return [word for word, _ in self._plain.pre_tokenizer.pre_tokenize_str(normalized)]

    def spell(self, word: str) -> list[int]:
        """Ids of one of the `words`, without dropout."""
        return [token.id for token in self._plain.model.tokenize(word)]

    def spellings(self) -> list[str]:
        """The characters of every id's token."""
        return [str(self._plain.id_to_token(i)) for i in range(self.vocabulary_size)]

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """The text before the first PAD."""
        text = [int(i) for i in ids]
        return str(self._plain.decode(text[: text.index(PAD)] if PAD in text else text))


def find_vocabulary(name: str) -> Path:
    """The file that `captions.vocabulary` means: a path, or a name in `tokenizers/`."""
    folder = shipped("tokenizers")
    candidates = [Path(name), folder / f"{name}.json", Path("tokenizers") / f"{name}.json"]
    for path in candidates:
        if path.is_file():
            return path
    there = ", ".join(sorted(path.stem for path in folder.glob("*.json"))) or "none"
    raise ConfigError(
        f"captions.vocabulary: {name!r} is neither a file nor a vocabulary in tokenizers/ "
        f"(there: {there}); leave it out to train one on the captions"
    )


def clean_caption(text: str) -> str:
    """The text with composed characters (NFC), one blank between words and none around them."""
    return " ".join(unicodedata.normalize("NFC", _valid_unicode(text)).split())


def _valid_unicode(caption: str) -> str:
    """Replace lone surrogates (half a character, from broken JSON), which have no bytes."""
    return caption.encode("utf-8", "replace").decode("utf-8")


def _read(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a readable caption vocabulary ({error})") from error
    model = description.get("model") if isinstance(description, dict) else None
    if not isinstance(model, dict) or model.get("type") != "BPE":
        raise ConfigError(f"{path}: not a byte-level BPE vocabulary; train one with this project")
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict) or vocabulary.get(PAD_TOKEN) != PAD:
        raise ConfigError(
            f"{path}: id {PAD} must be the padding token {PAD_TOKEN!r}, as in every vocabulary "
            "that this project trains"
        )
    if set(map(type, vocabulary.values())) != {int} or (
        sorted(vocabulary.values()) != list(range(len(vocabulary)))
    ):
        raise ConfigError(f"{path}: the ids must be 0 to {len(vocabulary) - 1:,}, each once")
    for section, name in (("truncation", "max_length"), ("padding", "strategy")):
        length = description.get(section) or {}
        length = length.get(name) if isinstance(length, dict) else None
        length = length.get("Fixed") if isinstance(length, dict) else length
        if type(length) is not int or not 0 < length <= MAX_CONTEXT:
            raise ConfigError(
                f"{path}: the context is missing in its section {section}, or not from 1 to "
                f"{MAX_CONTEXT:,}"
            )
    return description


def _build(description: dict[str, Any], origin: str | Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(json.dumps(description))
        tokenizer.encode_batch_fast(["a word"])  # some damage shows only here
        return tokenizer
    except BaseException as error:
        # The library raises bare Exception for a malformed file, and a panic is no Exception.
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise ConfigError(f"{origin}: damaged caption vocabulary ({reason})") from error
        raise

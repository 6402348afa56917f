"""Captions as integer ids: a byte-level BPE, trained on the collection or loaded from a file.

Every byte has a token, so any Unicode text is encoded and comes back exactly (but for case where
the vocabulary lower-cases). Id 0 is PAD, the only token that text cannot spell: captions are padded
with it on the right, its first occurrence ends the text, and the null caption is nothing else.
"""

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, SupportsInt

import numpy as np
from jaxtyping import Int
from pydantic import Field
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from dalle_mini_impl.config import Config, ConfigError

PAD = 0
# A character outside the 256 that spell bytes in the byte-level alphabet: no merge can produce it.
PAD_TOKEN = "∅"
BLANK = "Ġ"
"""How the byte-level alphabet spells a blank: what the first token of a word begins with."""
SHIPPED = Path(__file__).resolve().parent.parent / "tokenizers"


class CaptionsConfig(Config):
    """How captions become ids."""

    vocabulary: str | None = None
    """A vocabulary's JSON file, or the name of one in `tokenizers/`; none trains one."""
    vocabulary_size: int = Field(1024, ge=257)
    """Entries at most of a vocabulary that is trained here (256 bytes and PAD at least)."""
    context: int = Field(32, gt=0)
    """Ids per caption: longer captions are cut, shorter ones padded."""
    lowercase: bool = True
    """Lower-case captions (saved with a vocabulary, which keeps its own setting when loaded)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Chance of leaving out a merge in training (BPE-dropout)."""


class CaptionTokenizer:
    """Encodes captions into `context` ids each and decodes them again.

    Merges are left out at random (BPE-dropout, Provilkov et al. 2020, arXiv 1910.13267) only where
    `encode` is given a source of chance.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._description = tokenizer.to_str()
        self._plain = tokenizer
        model = json.loads(self._description)["model"]
        self.dropout: float = model["dropout"] or 0.0
        self._plain.model.dropout = None
        self._ids: dict[str, int] = model["vocab"]
        self._ranks = {tuple(pair): rank for rank, pair in enumerate(model["merges"])}
        self._context = int((tokenizer.truncation or {})["max_length"])

    @classmethod
    def train(cls, captions: Iterable[str], config: CaptionsConfig) -> "CaptionTokenizer":
        """Learn at most `config.vocabulary_size` entries from `captions`."""
        tokenizer = Tokenizer(models.BPE())
        # The blank before the first word makes it the same token there as anywhere else.
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
        tokenizer.train_from_iterator(map(_valid_unicode, captions), trainer)
        # An added token is also looked for in text; PAD stays an entry that text cannot spell.
        description = json.loads(tokenizer.to_str()) | {"added_tokens": []}
        return cls._arranged(description, config.context, config.dropout)

    @classmethod
    def load(cls, path: str | Path) -> "CaptionTokenizer":
        """Read a saved vocabulary. ConfigError if the file is missing or something else."""
        description = _read(Path(path))
        return cls(_build(description, Path(path)))

    @classmethod
    def from_config(
        cls, config: CaptionsConfig, captions: Iterable[str] = ()
    ) -> "CaptionTokenizer":
        """The configured vocabulary with the configured context, or one trained on `captions`."""
        if config.vocabulary is None:
            return cls.train(captions, config)
        path = find_vocabulary(config.vocabulary)
        _build(_read(path), path)
        return cls._arranged(_read(path), config.context, config.dropout)

    @classmethod
    def _arranged(
        cls, description: dict[str, Any], context: int, dropout: float
    ) -> "CaptionTokenizer":
        description["model"]["dropout"] = dropout or None
        tokenizer = Tokenizer.from_str(json.dumps(description))
        tokenizer.enable_truncation(context)
        tokenizer.enable_padding(pad_id=PAD, pad_token=PAD_TOKEN, length=context)
        return cls(tokenizer)

    def save(self, path: str | Path) -> None:
        """Write the vocabulary, context and dropout as the library's JSON."""
        Path(path).write_text(self._description, encoding="utf-8")

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, PAD among them."""
        return int(self._plain.get_vocab_size())

    @property
    def context(self) -> int:
        """Ids per caption."""
        return self._context

    def encode(
        self, captions: Sequence[str], rng: np.random.Generator | None = None
    ) -> Int[np.ndarray, "b t"]:
        """Ids (int64) of each caption, cut to the context and padded on the right with PAD.

        rng: leaves merges out at random, as often as `dropout` says; the same draws for the same
        generator. None leaves out none.
        """
        if rng is not None and self.dropout:
            ids = np.full((len(captions), self.context), PAD, np.int64)
            for row, caption in zip(ids, captions, strict=True):
                parts = [p for w in self.words(caption) for p in self._spell_at_random(w, rng)]
                own = [self._ids[part] for part in parts[: self.context]]
                row[: len(own)] = own
            return ids
        rows = self._plain.encode_batch_fast([_valid_unicode(caption) for caption in captions])
        return np.array([row.ids for row in rows], np.int64).reshape(-1, self.context)

    def _spell_at_random(self, word: str, rng: np.random.Generator) -> list[str]:
        """A word's tokens where each possible merge is left out with chance `dropout`, anew after
        every merge that is made (algorithm 1 of the paper)."""
        parts = list(word)
        while True:
            keep = rng.random(len(parts)) >= self.dropout
            pairs = enumerate(pairwise(parts))
            open_ = [(self._ranks[p], at) for at, p in pairs if keep[at] and p in self._ranks]
            if not open_:
                return parts
            _, at = min(open_)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]

    def count_truncated(self, captions: Iterable[str]) -> int:
        """How many captions are longer than the context and lose their end."""
        rows = self._plain.encode_batch([_valid_unicode(caption) for caption in captions])
        return sum(bool(row.overflowing) for row in rows)

    def words(self, text: str) -> list[str]:
        """What no merge crosses: words with the blank before them, in the byte-level alphabet."""
        normalized = self._plain.normalizer.normalize_str(_valid_unicode(text))
        return [word for word, _ in self._plain.pre_tokenizer.pre_tokenize_str(normalized)]

    def spell(self, word: str) -> list[int]:
        """Ids of a word in the byte-level alphabet, merged as far as the vocabulary goes."""
        return [token.id for token in self._plain.model.tokenize(word)]

    def spellings(self) -> list[str]:
        """Each id as it is spelled in the byte-level alphabet."""
        return [str(self._plain.id_to_token(i)) for i in range(self.vocabulary_size)]

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """The text before the first PAD."""
        text = [int(i) for i in ids]
        return str(self._plain.decode(text[: text.index(PAD)] if PAD in text else text))


def find_vocabulary(name: str) -> Path:
    """The file that `captions.vocabulary` means: a path, or a name in `tokenizers/`."""
    candidates = [Path(name), SHIPPED / f"{name}.json", Path("tokenizers") / f"{name}.json"]
    for path in candidates:
        if path.is_file():
            return path
    shipped = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.json"))) or "none"
    raise ConfigError(
        f"captions.vocabulary: {name!r} is neither a file nor a vocabulary in tokenizers/ "
        f"(there: {shipped}); leave it out to train one on the captions"
    )


def _valid_unicode(caption: str) -> str:
    """A lone surrogate (half a character, from broken JSON) cannot be written as bytes."""
    return caption.encode("utf-8", "replace").decode("utf-8")


def _read(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
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
    if not (description.get("truncation") and description.get("padding")):
        raise ConfigError(f"{path}: the context is missing (its truncation and padding sections)")
    return description


def _build(description: dict[str, Any], path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_str(json.dumps(description))
    except Exception as error:  # the library raises bare Exception for a malformed file
        raise ConfigError(f"{path}: damaged caption vocabulary ({error})") from error

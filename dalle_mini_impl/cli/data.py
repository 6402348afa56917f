"""data check PATH [--sheet OUT.png] [--vocabulary FILE.json] [--data.FIELD VALUE]

Reads every picture and caption of a collection and tells what training would find.

  PATH              a folder, file, glob, URL, Hub name or shapes; or an experiment's YAML
  --sheet OUT.png   also write a contact sheet of pictures and captions
  --vocabulary FILE also count the tokens of the captions, with a vocabulary from tokenizers/

`data check --help` lists the fields of the data section, such as --data.image-column.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.data.check import check
from dalle_mini_impl.data.sources import DataConfig

YAML = (".yaml", ".yml")


@dataclass(frozen=True)
class Check:
    """Read every picture and caption of a collection and tell what training would find."""

    path: tyro.conf.Positional[str]
    """A folder, file, glob, URL, Hub name or shapes; or an experiment's YAML."""
    sheet: Path | None = None
    """Write a contact sheet of pictures and captions here."""
    vocabulary: Path | None = None
    """Count the tokens of the captions with this vocabulary."""
    data: DataConfig = field(default_factory=DataConfig)
    """Fields of the data section; path is taken from PATH."""


def main(argv: Sequence[str]) -> None:
    """Check as the arguments say and print the report."""
    arguments = list(argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return
    if arguments[0] != "check":
        raise ConfigError(f"data {arguments[0]}: no such command; there is `data check PATH`")
    command = _parse(arguments[1:])
    count_tokens = _counter(command.vocabulary) if command.vocabulary else None
    print(check(command.data, command.sheet, count_tokens))


def _parse(arguments: list[str]) -> Check:
    """The command; where PATH is an experiment's YAML, its data section gives the defaults."""
    default = DataConfig()
    yaml = next((item for item in arguments if item.endswith(YAML)), None)
    if yaml is not None:
        from dalle_mini_impl.experiment import load_experiment

        default = load_experiment(yaml).data
    given = Check(path=tyro.MISSING, data=default)
    command = tyro.cli(Check, prog="dalle data check", default=given, args=arguments)
    if yaml is not None:
        return command
    data = command.data.model_copy(update={"path": command.path})
    return Check(command.path, command.sheet, command.vocabulary, data)


def _counter(vocabulary: Path) -> Callable[[Sequence[str]], Sequence[int]]:
    from dalle_mini_impl.captions import CaptionTokenizer

    tokenizer = CaptionTokenizer.load(vocabulary)

    def count(captions: Sequence[str]) -> Sequence[int]:
        return [int(n) for n in (tokenizer.encode(captions) != 0).sum(1)] if captions else []

    return count

"""data check PATH [--sheet OUT.png] [--vocabulary FILE.json] [--json] [--data.FIELD VALUE]

Reads every image and caption of a collection and reports what training would find.

  PATH              a folder, file, glob, URL, Hub name, shapes or panels; or an experiment's YAML
  --sheet OUT.png   also write a contact sheet of images and captions
  --vocabulary FILE also count the tokens of the captions, with a vocabulary from tokenizers/
  --json            print the report as one JSON document
  --quiet           print only the report, and errors

`data check --help` lists the fields of the data section, such as --data.image-column.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from dalle_mini_impl.cli.output import OutputOptions, output
from dalle_mini_impl.cli.output_folder import check_folder
from dalle_mini_impl.cli.run_options import optional
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.messages import printable

YAML = (".yaml", ".yml")


def main(argv: Sequence[str]) -> None:
    """Parse the options and print the report."""
    arguments = list(argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return
    if arguments[0] != "check":
        raise ConfigError(f"data {arguments[0]}: no such command; there is `data check PATH`")
    yaml = next((item for item in arguments[1:] if item.endswith(YAML)), None)
    default = DataConfig()
    if yaml is not None:
        from dalle_mini_impl.experiment import load_experiment

        default = load_experiment(yaml).data

    def check_collection(
        path: tyro.conf.Positional[str],
        sheet: Annotated[Path | None, optional(metavar="FILE")] = None,
        vocabulary: Annotated[Path | None, optional(metavar="FILE")] = None,
        data: DataConfig = default,
        options: Annotated[OutputOptions, tyro.conf.arg(name="")] = OutputOptions(),  # noqa: B008
    ) -> None:
        """Read every image and caption of a collection and report what training would find.

        Args:
            path: A folder, file, glob, URL, Hub name, shapes or panels; or an experiment's YAML.
            sheet: Write a contact sheet of images and captions here.
            vocabulary: Count the tokens of the captions with this vocabulary.
            data: Fields of the data section; path is taken from PATH.
            options: How the report is printed.
        """
        if not path.endswith(YAML):
            data = data.model_copy(update={"path": path})
        if sheet is not None:
            check_folder("--sheet", sheet.parent)
        from dalle_mini_impl.data.check import check

        with output(options) as result:
            report = check(data, sheet, _counter(vocabulary) if vocabulary else None)
            result(report.to_json(), lambda: print(printable(str(report))))

    tyro.cli(check_collection, prog="dalle data check", args=arguments[1:])


def _counter(vocabulary: Path) -> Callable[[Sequence[str]], Sequence[int]]:
    from dalle_mini_impl.captions import CaptionTokenizer

    tokenizer = CaptionTokenizer.load(vocabulary)

    def count(captions: Sequence[str]) -> Sequence[int]:
        return [int(n) for n in (tokenizer.encode(captions) != 0).sum(1)] if captions else []

    return count

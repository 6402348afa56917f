"""What commands print and write: --json and --quiet, tables, JSON files."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dalle_mini_impl.data.messages import printable
from dalle_mini_impl.files import write_text

if TYPE_CHECKING:
    from rich.text import Text


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """The base of every command's options: how it prints."""

    json: bool = False
    """Print the result as one JSON document; everything else goes to standard error."""
    quiet: bool = False
    """Print only the result, and errors."""


Result = Callable[[object, Callable[[], None]], None]
"""Prints a command's result, once: as JSON, or by the function that shows it as text."""


@contextmanager
def output(options: OutputOptions) -> Iterator[Result]:
    """Inside, what is printed is no result: --json sends it to standard error, --quiet nowhere."""
    standard = sys.stdout

    def result(value: object, show: Callable[[], None]) -> None:
        with redirect_stdout(standard):
            if options.json:
                print(json.dumps(value, indent=2, ensure_ascii=False))
            else:
                show()

    with ExitStack() as stack:
        if options.quiet:
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        elif options.json:
            stack.enter_context(redirect_stdout(sys.stderr))
        yield result


def show_table(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """A table whose columns are the keys of its rows; numbers with three decimals."""
    # Imported here because most commands show no table.
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for name in rows[0] if rows else ():
        number = isinstance(rows[0][name], int | float)
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    console = Console()
    # Rich would wrap a title of its own to the width of the table.
    console.print(printable(title), markup=False, highlight=False)
    console.print(table)


def _cell(value: Any) -> "Text":
    from rich.text import Text

    # Text, not markup: a file's name may hold brackets.
    text = f"{value:.3f}" if isinstance(value, float) else printable(str(value))
    return Text(text, overflow="fold")


def write_json(path: Path, value: object) -> None:
    """Write a JSON file; a reader never sees half of it."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

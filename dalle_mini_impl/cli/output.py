"""What commands print and write: tables, JSON and text files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dalle_mini_impl.files import write_text


def show_table(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """A table whose columns are the keys of its rows; numbers with three decimals."""
    table = Table()
    for name in rows[0] if rows else ():
        number = isinstance(rows[0][name], int | float)
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    console = Console()
    # Rich would wrap a title of its own to the width of the table.
    console.print(title, markup=False, highlight=False)
    console.print(table)


def _cell(value: Any) -> Text:
    # Text, not markup: a file's name may hold brackets.
    return Text(f"{value:.3f}" if isinstance(value, float) else str(value), overflow="fold")


def print_json(value: object) -> None:
    """JSON on standard output, for other programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def write_json(path: Path, value: object) -> None:
    """Write a JSON file; a reader never sees half of it."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

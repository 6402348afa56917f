"""What the commands around a CLIP share: opening pictures, and showing a table or JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.table import Table

from dalle_mini_impl.cli.sample import open_picture
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.data.detect import detect


def open_pictures(paths: Sequence[Path]) -> dict[str, Image.Image]:
    """The pictures by name; a folder stands for all pictures in it. ConfigError for none."""
    files: list[Path] = []
    for path in paths:
        files += [Path(file) for file in detect(str(path)).files] if path.is_dir() else [path]
    if not files:
        raise ConfigError("give one picture or more")
    return {str(file): open_picture("PICTURE", file) for file in files}


def show(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """A table whose columns are the keys of its rows; numbers with three decimals."""
    table = Table(title=title, title_justify="left")
    for name in rows[0] if rows else ():
        table.add_column(name, justify="right" if _is_number(rows[0][name]) else "left")
    for row in rows:
        # Text, not markup: a file's name may hold brackets.
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else _plain(v) for v in row.values()))
    Console().print(table)


def print_json(value: object) -> None:
    """For other programs: JSON alone on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _plain(value: Any) -> Any:
    from rich.text import Text

    return Text(str(value), overflow="fold")

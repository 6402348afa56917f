"""Finds the files that come with the package, in a checkout and in an installed wheel.

A checkout has `configs` and `tokenizers` beside the package; a wheel carries them inside it.
"""

import difflib
from pathlib import Path
from typing import Literal

PACKAGE = Path(__file__).resolve().parents[1]


def shipped(kind: Literal["configs", "tokenizers", "pretrained"]) -> Path:
    """The folder of the shipped files of one kind."""
    inside = PACKAGE / kind
    return inside if inside.is_dir() else PACKAGE.parent / kind


def config_names() -> list[str]:
    """The names of the shipped configurations."""
    return sorted(file.stem for file in shipped("configs").glob("*.yaml"))


def find_config(name: str | Path) -> Path:
    """The YAML that CONFIG means: a file, or the name of a shipped configuration."""
    path = Path(name)
    if not path.is_file() and str(name) in config_names():
        return shipped("configs") / f"{name}.yaml"
    return path


def suggest_config(name: str | Path) -> str:
    """What to write in place of a CONFIG that does not exist."""
    names = config_names()
    near = difflib.get_close_matches(Path(name).stem, names, n=1)
    question = f"did you mean {near[0]}? " if near else ""
    return f"{question}shipped configurations: {', '.join(names)}"

"""How messages name the commands of this program, so that the reader can run them."""

from pathlib import Path

from dalle_mini_impl.shipped.folders import PACKAGE


def command(name: str) -> str:
    """`python NAME.py` in a checkout that has that script, `dalle NAME` everywhere else."""
    script = Path(f"{name}.py")
    own = script.is_file() and script.resolve().parent == PACKAGE.parent
    return f"python {script}" if own else f"dalle {name}"

"""Parts of messages to users: counts with their noun, the first of many names, causes of errors."""

from collections.abc import Sequence

LAST_CONTROL = 0x9F
"""The last of the characters that command a terminal."""


def counted(number: int, noun: str, plural: str = "") -> str:
    """The number with its noun: 1 image, 2,000 images. plural: unless it is the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def first_names(items: Sequence[str], most: int = 5) -> str:
    """The first items, for a message."""
    return "; ".join(items[:most]) + ("; …" if len(items) > most else "")


def readable(name: str) -> str:
    """The name with what is not Unicode written as escapes, so that it can be printed and saved."""
    return name.encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """The text without characters that command a terminal: they are shown as escapes.

    Captions and file names may come from strangers.
    """
    return "".join(
        character
        if character.isprintable() or character in "\n\t" or ord(character) > LAST_CONTROL
        else ascii(character)[1:-1]
        for character in text
    )


def root_cause(error: BaseException) -> str:
    """First line of the innermost error message: libraries wrap the informative one."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def import_problem(library: str, error: Exception) -> str:
    """Whether a library is not installed, or why it cannot be imported though it is there."""
    if isinstance(error, ModuleNotFoundError) and error.name == library:
        return f"{library} is not installed"
    return f"{library} is installed but cannot be imported: {root_cause(error)}"

"""The `dalle` command: a table of commands, of which only the chosen one is imported."""

import difflib
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from dalle_mini_impl.data.messages import printable, readable
from dalle_mini_impl.version import package_version

COMMANDS = {
    "train": ("dalle_mini_impl.cli.train", "train the models of an experiment, or continue a run"),
    "sample": ("dalle_mini_impl.cli.sample", "sample images from captions and rank them"),
    "plan": ("dalle_mini_impl.cli.plan", "estimate what a training run needs before starting it"),
    "caption": ("dalle_mini_impl.cli.caption", "rank captions by how well they explain an image"),
    "optimize": ("dalle_mini_impl.cli.optimize", "optimize images along CLIP's gradient"),
    "classify": ("dalle_mini_impl.cli.classify", "classify images by given labels"),
    "index": ("dalle_mini_impl.cli.index", "make a folder or collection of images searchable"),
    "search": ("dalle_mini_impl.cli.search", "find indexed images by text or by image"),
    "rerank": ("dalle_mini_impl.cli.rerank", "rank images by how well they fit a caption"),
    "evaluate": ("dalle_mini_impl.cli.evaluate", "measure a run and judge its samples"),
    "export": ("dalle_mini_impl.cli.export", "copy what sampling needs of a run, as folder or zip"),
    "data": ("dalle_mini_impl.cli.data", "check a collection before training on it"),
    "fetch-data": ("dalle_mini_impl.cli.fetch_data", "build the collection emoji or cifar10"),
    "completion": (
        "dalle_mini_impl.cli.completion",
        "print a script by which a shell completes commands and options",
    ),
}


OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")
"""What torch says of it, by device and system."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (2 for errors that the user can fix)."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be Unicode
    try:
        try:
            return run_command(argv)
        finally:
            _flush()  # A closed pipe or a full disk shows here, not after the interpreter's end.
    except BrokenPipeError:
        _forget_output()  # The reader, such as head, has enough.
        return 128 + 13  # As a shell reports SIGPIPE.
    except OutputError as error:
        _forget_output()
        return _fail(f"standard output: {error}")


class OutputError(Exception):
    """What is printed cannot be written, such as to a full disk."""


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(_for_the_user(error) or str(error)) from error


def _forget_output() -> None:
    """What is still buffered must not fail again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_command(argv: Sequence[str] | None) -> int:
    """Run one command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments.pop(0) if arguments else "--help"
    if name == "help" and arguments:
        name, arguments = arguments[0], [*arguments[1:], "--help"]
    if name in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if name == "--version":
        print(f"dalle-mini-impl {package_version()}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        return _fail(f"dalle {name}: no such command; {hint}")
    for argument in arguments:
        if readable(argument) != argument:
            shown = readable(argument)[:200]
            return _fail(f"dalle {name}: {shown} is not UTF-8; write it so, or rename the file")
        if "\0" in argument:
            return _fail(f"dalle {name}: {argument[:200]} has a NUL character; leave it out")
    try:
        import_module(COMMANDS[name][0]).main(arguments)
    except Exception as error:
        message = _for_the_user(error)
        if message is None or os.environ.get("DALLE_TRACEBACK"):
            raise
        return _fail(f"dalle {name}: {message}")
    except KeyboardInterrupt:
        return 130
    return 0


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {purpose}" for name, (_, purpose) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: dalle COMMAND [...]   (dalle help COMMAND lists its options)",
            "",
            "Train a text-to-image model on captioned images, and sample from it.",
            "",
            *lines,
        ]
    )


def _for_the_user(error: Exception) -> str | None:
    """What to print of an error that the user can mend; None for a bug of the program."""
    # Imported here so that `dalle --help` starts quickly, without torch.
    from dalle_mini_impl.config import ConfigError
    from dalle_mini_impl.data.collections.detect import DataError
    from dalle_mini_impl.runs.os_errors import explain_os_error
    from dalle_mini_impl.runs.weights import RunError
    from dalle_mini_impl.training.nonfinite import NonFiniteLoss

    if isinstance(error, ConfigError | DataError | RunError | NonFiniteLoss):
        return str(error)
    if isinstance(error, MemoryError) or any(text in str(error) for text in OUT_OF_MEMORY):
        return "memory ran out; ask for less at a time, or for smaller models (`dalle plan`)"
    return explain_os_error(error)


def _fail(message: str) -> int:
    print(printable(message), file=sys.stderr)
    return 2

"""How commands read their options: every value is checked before anything is loaded."""

import sys
import typing
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_args

import tyro
from pydantic import TypeAdapter, ValidationError
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from dalle_mini_impl.config import Config, ConfigError
from dalle_mini_impl.experiment import field_paths

Arguments = TypeVar("Arguments")
PATHS = ConstructorRegistry()
"""Refuses empty paths: as an option they mean the current folder, which nobody asks for so."""


@PATHS.primitive_rule
def _path_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path] | None:
    if info.type is not Path:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda texts: _path(texts[0]),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda path: [str(path)],
    )


def _path(text: str) -> Path:
    if not text:
        raise ValueError("the path is empty; write . for the current folder")
    return Path(text)


def parse_arguments(
    kind: type[Arguments],
    argv: Sequence[str] | None,
    prog: str,
    default: Arguments | None = None,
) -> Arguments:
    """The command line as a dataclass of arguments; ConfigError that names a wrong option.

    Limits stand beside the types, as in `Annotated[int, Field(ge=1)]`, and in sections.
    """
    _check_sections(kind, sys.argv[1:] if argv is None else argv, default)
    arguments: Arguments = tyro.cli(
        kind,
        prog=prog,
        args=argv,
        default=tyro.MISSING_NONPROP if default is None else default,
        registry=PATHS,
    )
    check_values(arguments)
    return arguments


def option_texts(argv: Sequence[str], section: Config, prefix: str = "") -> dict[str, Any]:
    """Options given for fields of a section, as text by dotted name, without the prefix."""
    fields = {prefix + name: name for name in field_paths(type(section))}
    values: dict[str, list[str]] = {}
    name = ""
    for argument in argv:
        if argument.startswith("--"):
            option, *value = argument.removeprefix("--").split("=", 1)
            name = option.replace("-", "_")
            values[name] = value
        elif name:
            values[name].append(argument)
    texts: dict[str, Any] = {}
    for name in values.keys() & fields.keys():
        current: Any = section
        for part in fields[name].split("."):
            current = getattr(current, part, ())  # Of a type that other options choose.
        if values[name]:
            several = isinstance(current, tuple)
            texts[fields[name]] = values[name] if several else values[name][0]
            if texts[fields[name]] == "None":
                texts[fields[name]] = None
    return texts


def _check_sections(kind: Any, argv: Sequence[str], default: Any) -> None:
    """ConfigError for wrong values of fields of sections, which tyro would wrap in its own text."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        section = getattr(default, field.name, None)
        if default is None and callable(field.default_factory):
            section = field.default_factory()
        if not isinstance(section, Config):
            continue
        unnamed = any(getattr(note, "name", None) == "" for note in get_args(hints[field.name]))
        prefix = "" if unnamed else f"{field.name}."
        settings = section.model_dump()
        for name, text in option_texts(argv, section, prefix).items():
            *parents, last = name.split(".")
            inner = settings
            for parent in parents:
                inner = inner[parent]
            inner[last] = text
        try:
            type(section).model_validate(settings)
        except ValidationError as error:
            raise _wrong(error, prefix) from error


def check_values(arguments: Any) -> None:
    """ConfigError for the first option beyond its limits, or that is not finite."""
    hints = typing.get_type_hints(type(arguments), include_extras=True)
    for field in fields(arguments):
        value, hint = getattr(arguments, field.name), hints[field.name]
        if not any(isinstance(number, int | float) for number in _leaves(value)):
            continue
        try:
            TypeAdapter(hint, config={"allow_inf_nan": False}).validate_python(value)
        except ValidationError as error:
            raise _wrong(error, field.name) from error


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        yield from value
    elif not isinstance(value, Config):
        yield value


def _wrong(error: ValidationError, prefix: str) -> ConfigError:
    detail = error.errors()[0]
    names = [part for part in detail["loc"] if isinstance(part, str)]
    option = (prefix + ".".join(names)).replace("_", "-")
    message = detail["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return ConfigError(f"--{option} {detail['input']}: {message}")

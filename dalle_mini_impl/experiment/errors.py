"""Turns pydantic's errors into messages with the field, its value and what to write instead."""

import difflib
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from dalle_mini_impl.config import Config, ConfigError, descriptions
from dalle_mini_impl.experiment.sections import Experiment, field_paths, sections_of
from dalle_mini_impl.experiment.yaml_text import shortened

SHOWN = 10
"""Wrong settings that are explained; the others are counted."""
LONGEST_NAME = 80


def explain(error: ValidationError, origin: str, root: type[Config] = Experiment) -> ConfigError:
    """One error with a line per wrong setting of `root`.

    origin: the file, the command line or what else the settings came from.
    """
    details = error.errors(include_url=False)
    lines = [line for detail in details[:SHOWN] for line in _explain_one(dict(detail), root)]
    if len(details) > SHOWN:
        lines.append(f"and {len(details) - SHOWN:,} more")
    separator = "\n  " if len(lines) > 1 else " "
    return ConfigError(f"{origin}:{separator}{separator.join(lines)}")


def _explain_one(detail: dict[str, Any], root: type[Config]) -> Iterator[str]:
    kind, value = detail["type"], detail["input"]
    names, section = _locate(detail["loc"], root)
    field = ".".join(name if len(name) <= LONGEST_NAME else shortened(name) for name in names)
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if kind == "value_error":
        # One of our own checks: its message is complete, except for the field it belongs to.
        prefix = f"{field}: " if field else ""
        yield from (prefix + line for line in message.splitlines())
    elif kind == "extra_forbidden":
        yield f"{field} = {shortened(value)}: no such setting; {_suggest(names, section)}"
    elif kind in ("union_tag_invalid", "union_tag_not_found"):
        given = value.get("type") if isinstance(value, dict) else value
        types = detail["ctx"].get("expected_tags", "those of the reference").replace(", ", " or ")
        yield f"{field}.type = {shortened(given)}: write one of {types}"
    else:
        if kind == "model_type":
            message = "should be a section of settings"
        described = descriptions(section).get(names[-1]) if section and names else None
        meaning = f" ({described})" if described else ""
        yield f"{field or 'the file'} = {shortened(value)}: {message}{meaning}"


def _suggest(names: list[str], section: type[Config] | None) -> str:
    """The setting that a misspelled or misplaced name most likely means."""
    if section is None:
        return "remove it"
    *parents, wrong = names
    if len(wrong) > LONGEST_NAME:  # looking for similar names would take long
        return "remove it"
    near = difflib.get_close_matches(wrong, section.model_fields, n=1)
    if near:
        return f"did you mean {near[0]}?"
    deeper = [path for path in field_paths(section) if path.split(".")[-1] == wrong]
    if deeper:
        return f"did you mean {'.'.join([*parents, deeper[0]])}?"
    elsewhere = [path for path in field_paths(Experiment) if path.split(".")[-1] == wrong]
    if elsewhere:
        return f"did you mean {elsewhere[0]}?"
    return f"remove it; the settings here are {', '.join(section.model_fields)}"


def _locate(
    location: tuple[int | str, ...], root: type[Config]
) -> tuple[list[str], type[Config] | None]:
    """The names that lead to a setting, without a union's tags, and the section that holds it."""
    names: list[str] = []
    holder: type[Config] | None = None
    options: list[type[Config]] = [root]
    for part in location:
        tagged = [o for o in options if "type" in o.model_fields]
        chosen = [o for o in tagged if o.model_fields["type"].default == part]
        if len(options) > 1 and chosen:
            options = chosen
            continue
        holder = options[0] if options else holder
        names.append(str(part))
        field = holder.model_fields.get(str(part)) if holder and options else None
        options = sections_of(field.annotation) if field else []
    return names, holder

"""YAML 1.2 scalars for PyYAML: `off` is text, `3e-3` a number; a repeated key is an error.

Text that would take much time or memory is refused before it becomes values.
"""

import re
from typing import Any

import yaml

from dalle_mini_impl.config import ConfigError

MAX_CHARACTERS = 2**20
MAX_VALUES = 10_000
"""Keys and values of a file, with those that an alias stands for. A whole experiment has 300."""
MAX_DEPTH = 20
MAX_DIGITS = 40
PLAIN_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML with the scalars of YAML 1.2 (PyYAML reads `off` as false, `3e-3` as text)."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str):
                raise self.problem("the name of a setting must be text", key)
            if name in seen:
                raise self.problem(f"{shortened(name)} is given twice; keep one", key)
            seen.add(name)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        tag = node.tag.removeprefix("tag:yaml.org,2002:")
        if tag not in PLAIN_TAGS:
            raise self.problem(f"!{tag[:40]} is no kind of value here", node)
        if tag == "int" and len(node.value) > MAX_DIGITS:
            raise self.problem(f"a number of {len(node.value):,} digits", node)
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, IndexError):  # such as `!!int word`
            raise self.problem(f"{shortened(node.value)} is no {tag}", node) from None

    @staticmethod
    def problem(text: str, node: Any) -> yaml.YAMLError:
        """An error at the node's place."""
        return yaml.constructor.ConstructorError(None, None, text, node.start_mark)


class _Dumper(yaml.SafeDumper):
    """Safe YAML with lists on one line."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag.rpartition(":")[2] not in ("bool", "float", "timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf)$|^\.nan$"),
    list("-+0123456789."),
)
_Dumper.add_representer(
    list,
    lambda dumper, items: dumper.represent_sequence(
        "tag:yaml.org,2002:seq", items, flow_style=True
    ),
)


def parse_yaml(text: str, origin: str) -> dict[str, Any]:
    """Sections by name; ConfigError with line and column if the text is not YAML."""
    try:
        _check_cost(text, origin)
        settings = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{origin}, line {mark.line + 1}, column {mark.column + 1}" if mark else origin
        problem = getattr(error, "problem", None) or str(error).splitlines()[0][:200]
        raise ConfigError(
            f"{where}: not valid YAML ({problem}); write `name: value`, indented by two spaces"
        ) from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise ConfigError(f"{origin}: holds {type(settings).__name__}, not sections of settings")
    return settings


def shortened(value: Any, most: int = 80) -> str:
    """The value as Python writes it, cut to what fits into a message."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def _check_cost(text: str, origin: str) -> None:
    """ConfigError for deep nesting, or more values than a configuration has, aliases expanded."""
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{origin}: more than {MAX_CHARACTERS:,} characters; not a configuration")
    values = 0
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = []  # of each open section, its anchor and its start
    event: Any  # PyYAML's types call marks and anchors optional
    for event in yaml.parse(text, _Loader):
        where = f"{origin}, line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ConfigError(f"{where}: *{event.anchor:.40} stands for nothing before it")
            values += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, start = opened.pop()
            if anchor is not None:
                sizes[anchor] = values - start
        elif isinstance(event, yaml.NodeEvent):
            values += 1
            if isinstance(event, yaml.CollectionStartEvent):
                opened.append((event.anchor, values - 1))
            elif event.anchor is not None:
                sizes[event.anchor] = 1
        if len(opened) > MAX_DEPTH:
            raise ConfigError(f"{where}: nested more than {MAX_DEPTH} deep; no setting is")
        if values > MAX_VALUES:
            raise ConfigError(f"{where}: more than {MAX_VALUES:,} values, aliases counted in full")


def dump_yaml(sections: dict[str, Any]) -> str:
    """The inverse of `parse_yaml`, with a blank line between sections."""
    return "\n".join(
        yaml.dump({name: section}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
        for name, section in sections.items()
    )

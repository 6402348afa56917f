"""Every number that a user can write is accepted or refused by name, before anything is loaded."""

import itertools
import typing
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from dalle_mini_impl.cli import main
from dalle_mini_impl.cli.caption import CaptionArguments
from dalle_mini_impl.cli.classify import ClassifyArguments
from dalle_mini_impl.cli.evaluate import EvaluateArguments
from dalle_mini_impl.cli.optimize_arguments import OptimizeArguments
from dalle_mini_impl.cli.plan import Command as PlanArguments
from dalle_mini_impl.cli.sample_arguments import SampleArguments
from dalle_mini_impl.cli.search import SearchArguments
from dalle_mini_impl.config import Config
from dalle_mini_impl.experiment import Experiment, explain
from dalle_mini_impl.experiment.sections import sections_of
from dalle_mini_impl.sampling.config import SamplingConfig

BAD = ("nan", "inf", "-1", "0", str(10**30))
COMMANDS = {
    "caption whole.png": CaptionArguments,
    "classify whole.png --labels a b": ClassifyArguments,
    "evaluate": EvaluateArguments,
    "optimize text": OptimizeArguments,
    "plan shapes --no-measure": PlanArguments,
    "sample text": SampleArguments,
    "search text": SearchArguments,
}
NEVER_ACCEPTED = ("nan", "inf", str(10**30))


def leaves(annotation: Any) -> list[Any]:
    """The types inside a type, such as int of tuple[int, ...] | None."""
    inside = [part for part in get_args(annotation) if part is not Ellipsis]
    if typing.get_origin(annotation) is typing.Literal:
        return []
    return [leaf for part in inside for leaf in leaves(part)] if inside else [annotation]


def is_number(annotation: Any) -> bool:
    return any(leaf in (int, float) for leaf in leaves(annotation))


def numbers_of(section: type[Config], path: str = "") -> list[tuple[str, type[Config], str]]:
    """Dotted path, section and name of every numeric field below `section`."""
    found = []
    for name, field in section.model_fields.items():
        below = sections_of(field.annotation)
        for inner in below:
            found += numbers_of(inner, f"{path}{name}.")
        if not below and is_number(field.annotation):
            found.append((path + name, section, name))
    return found


def as_given(section: type[Config], name: str, text: str) -> Any:
    """The text, as often as a tuple of a fixed length has parts."""
    annotation = section.model_fields[name].annotation
    kinds = (annotation, *get_args(annotation))
    several = next((kind for kind in kinds if typing.get_origin(kind) is tuple), None)
    parts = [part for part in get_args(several) if part is not Ellipsis]
    return [text] * len(parts) if parts else text


def test_every_number_of_the_schema_has_limits():
    fields = numbers_of(Experiment)
    assert len(fields) > 100
    unbounded = []
    for (path, section, name), text in itertools.product(fields, BAD):
        value = as_given(section, name, text)
        try:
            section.model_validate({name: value})
        except ValidationError as error:
            message = str(explain(error, "shapes.yaml", section))
            assert name in message, (path, text, message)
            assert "Traceback" not in message
        else:
            if text in NEVER_ACCEPTED:
                unbounded.append(f"{path} = {text}")
    assert not unbounded


def options_of(kind: Any) -> list[str]:
    """The numeric options of a command, without the fields of an experiment."""
    found = []
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        sections = [leaf for leaf in leaves(hint) if isinstance(leaf, type)]
        section = next((leaf for leaf in sections if issubclass(leaf, Config)), None)
        if section is None and is_number(hint):
            found.append(name)
        elif section is not None and section is not Experiment:
            given = SamplingConfig if name == "sampling" else section
            prefix = "" if name in ("settings", "sampling") else f"{name}."
            found += [path for path, _, _ in numbers_of(given, prefix)]
    return [name.replace("_", "-") for name in found]


CASES = [(command, option) for command, kind in COMMANDS.items() for option in options_of(kind)]


class Loaded(Exception):
    """The command began to load something: all options are accepted."""


@pytest.fixture
def nothing_loads(monkeypatch, tmp_path):
    def load(*_: Any, **__: Any) -> None:
        raise Loaded

    monkeypatch.chdir(tmp_path)
    for module, name in [
        ("caption", "check_device"), ("caption", "open_images"),
        ("classify", "check_device"), ("evaluate", "check_device"), ("search", "check_device"),
        ("optimize", "check_device"), ("sample", "sample"),
    ]:  # fmt: skip
        monkeypatch.setattr(f"dalle_mini_impl.cli.{module}.{name}", load)
    monkeypatch.setattr("dalle_mini_impl.planning.plan.make_plan", load)


def test_there_are_numbers_in_the_commands():
    assert len(CASES) > 40
    assert ("optimize text", "film.per-second") in CASES
    assert ("sample text", "temperature") in CASES


@pytest.mark.parametrize(("command", "option"), CASES)
def test_every_number_of_a_command_is_accepted_or_refused_by_name(
    command, option, nothing_loads, capsys
):
    for text in BAD:
        several = 2 if option == "film.pan" else 1
        extra = ["--continue-text", ""] if option == "num-captions" else []
        extra = ["--complete", "a.png"] if option == "keep-rows" else extra
        words = command.split()[: 1 if option == "num-captions" else None]
        try:
            status = main([*words, *extra, f"--{option}", *[text] * several])
        except Loaded:
            assert text not in NEVER_ACCEPTED, text
            continue
        except SystemExit as refused:  # tyro's own refusal of what is no number of this kind
            status = refused.code
        message = capsys.readouterr().err
        assert status == 2
        assert f"--{option}" in message, (text, message)
        assert "pydantic" not in message

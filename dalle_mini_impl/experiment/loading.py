"""Reads an experiment from YAML, with values replaced by dotted name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dalle_mini_impl.config import Config, ConfigError
from dalle_mini_impl.experiment.errors import explain
from dalle_mini_impl.experiment.sections import Experiment, sections_of
from dalle_mini_impl.experiment.yaml_text import MAX_CHARACTERS, parse_yaml
from dalle_mini_impl.models.tokenizers.configs import PRESETS
from dalle_mini_impl.shipped.folders import find_config, suggest_config
from dalle_mini_impl.version import package_version

FORMAT = 2
"""Format of a run's config.yaml; raised whenever settings are renamed or change their meaning."""


def load_experiment(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Read an experiment's YAML or a run's config.yaml; ConfigError if anything in it is wrong.

    path: a file, or the name of a shipped configuration.

    overrides: values by dotted name, as in `{"transformer.depth": 8}`. If they change the type of
    a section, the file's settings that the new type does not have are dropped; if they change
    `image_tokenizer.preset`, what presets set.
    """
    settings = read_settings(path)
    if "run" in settings:
        check_format(settings.pop("run"), str(path))
    # A section left empty keeps its defaults.
    settings = {name: section for name, section in settings.items() if section is not None}
    experiment = _validated(settings, str(path))
    if not overrides:
        return experiment
    preset = overrides.get("image_tokenizer.preset", experiment.image_tokenizer.preset)
    if preset != experiment.image_tokenizer.preset:
        _forget_preset(settings.get("image_tokenizer", {}))
    for name, value in overrides.items():
        if name.endswith(".type"):
            _forget_other_types(settings, name.split(".")[:-1], value)
        _override(settings, name, value)
    return _validated(settings, f"{path} with the overrides given")


def read_settings(path: str | Path) -> dict[str, Any]:
    """The sections of a YAML file, not validated yet; ConfigError if it cannot be read."""
    try:
        with find_config(path).open(encoding="utf-8") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a path with NUL
        raise ConfigError(
            f"{path}: not a readable file ({error}); {suggest_config(path)}"
        ) from error
    return parse_yaml(text, str(path))


def check_format(record: Any, origin: str) -> None:
    """ConfigError unless the `run` record of a config.yaml has the format that is read here."""
    record = record if isinstance(record, dict) else {}
    if record.get("format") != FORMAT:
        given = f"in format {record['format']}" if "format" in record else "without a format number"
        raise ConfigError(
            f"{origin}: written by version {record.get('package_version', 'unknown')} {given}, but "
            f"this is version {package_version()}, which reads format {FORMAT}; train the run "
            "again, or use the version that wrote it"
        )


def _validated(settings: dict[str, Any], origin: str) -> Experiment:
    try:
        return Experiment.model_validate(settings)
    except ValidationError as error:
        raise explain(error, origin) from error


def _forget_preset(tokenizer: dict[str, Any]) -> None:
    """Remove what a preset sets, so that another one takes its place."""
    for name in {name for values in PRESETS.values() for name in values} - {"objective"}:
        tokenizer.pop(name, None)
    for name in ("perceptual", "adversarial"):
        tokenizer.get("objective", {}).pop(name, None)


def _forget_other_types(settings: dict[str, Any], path: list[str], type_name: Any) -> None:
    """Remove the settings of the section at `path` that the named type does not have."""
    kinds: list[type[Config]] = [Experiment]
    for part in path:
        field = kinds[0].model_fields.get(part) if kinds else None
        kinds = sections_of(field.annotation) if field else []
        settings = settings.get(part, {})
    for kind in kinds:
        if "type" in kind.model_fields and kind.model_fields["type"].default == type_name:
            for name in settings.keys() - kind.model_fields.keys():
                del settings[name]


def _override(settings: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        if settings.get(section) is None:
            settings[section] = {}
        settings = settings[section]
        if not isinstance(settings, dict):
            raise ConfigError(f"{name}: {section} is a value, not a section with settings")
    settings[last] = value

"""Reads an experiment from YAML, with values replaced by dotted name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.experiment.errors import explain
from dalle_mini_impl.experiment.sections import Experiment
from dalle_mini_impl.experiment.yaml_text import parse_yaml
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizerConfig
from dalle_mini_impl.version import package_version

SHIPPED = Path(__file__).resolve().parents[2] / "configs"
FORMAT = 1
"""Format of a run's config.yaml; raised whenever settings are renamed or change their meaning."""


def load_experiment(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Read an experiment's YAML or a run's config.yaml; ConfigError if anything in it is wrong.

    overrides: values by dotted name, as in `{"transformer.depth": 8}`. If they change
    `image_tokenizer.type`, the file's settings that the new type does not have are dropped.
    """
    settings = read_settings(path)
    if "run" in settings:
        check_format(settings.pop("run"), str(path))
    # A section left empty keeps its defaults.
    settings = {name: section for name, section in settings.items() if section is not None}
    experiment = _validated(settings, str(path))
    if not overrides:
        return experiment
    new_type = overrides.get("image_tokenizer.type", experiment.image_tokenizer.type)
    settings["image_tokenizer"] = _with_type(new_type, settings.get("image_tokenizer", {}))
    for name, value in overrides.items():
        _override(settings, name, value)
    return _validated(settings, f"{path} with the overrides given")


def read_settings(path: str | Path) -> dict[str, Any]:
    """The sections of a YAML file, not validated yet; ConfigError if it cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        shipped = ", ".join(f"configs/{file.name}" for file in sorted(SHIPPED.glob("*.yaml")))
        raise ConfigError(f"{path}: not a readable file ({error}); shipped: {shipped}") from error
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


def _with_type(type_name: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """An image tokenizer's settings without those that the named type does not have."""
    for config in get_args(ImageTokenizerConfig):
        if config.model_fields["type"].default == type_name:
            settings = {k: value for k, value in settings.items() if k in config.model_fields}
    return {**settings, "type": type_name}


def _override(settings: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        if settings.get(section) is None:
            settings[section] = {}
        settings = settings[section]
        if not isinstance(settings, dict):
            raise ConfigError(f"{name}: {section} is a value, not a section with settings")
    settings[last] = value

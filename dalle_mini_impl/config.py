"""The base of every configuration section, and the error that wrong configuration raises."""

from pydantic import BaseModel, ConfigDict


class ConfigError(ValueError):
    """A configuration that cannot work; the message names the file, field, value and mend."""


class Config(BaseModel):
    """A frozen section: unknown keys are refused, the docstring under a field describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

"""The YAML of an experiment: its sections, how they are checked, and errors that name the field."""

from dalle_mini_impl.experiment.errors import explain
from dalle_mini_impl.experiment.loading import (
    FORMAT,
    check_format,
    load_experiment,
    read_settings,
)
from dalle_mini_impl.experiment.sections import Experiment, field_paths

__all__ = [
    "FORMAT",
    "Experiment",
    "check_format",
    "explain",
    "field_paths",
    "load_experiment",
    "read_settings",
]

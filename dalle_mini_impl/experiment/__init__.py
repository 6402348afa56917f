"""The YAML of an experiment: its sections, their checks, and errors that name the field."""

from dalle_mini_impl.experiment.sections import SHIPPED, Experiment, load_experiment

__all__ = ["SHIPPED", "Experiment", "load_experiment"]

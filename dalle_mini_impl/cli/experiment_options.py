"""Options for the fields of an experiment, such as --transformer.depth 8, on top of its YAML."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro
from pydantic import ValidationError

from dalle_mini_impl.cli.parsing import PATHS, check_values, option_texts
from dalle_mini_impl.experiment import Experiment, explain, load_experiment

Command = TypeVar("Command")
SHAPING = tuple(f"image_tokenizer.{name}" for name in ("preset", "autoencoder.", "quantizer."))
"""Where options decide which other options there are."""


def parse(
    default: Callable[[Experiment], Command], prog: str, argv: Sequence[str], config: str
) -> Command:
    """The command line, with the YAML at `config` as the defaults of the experiment's fields.

    default: what the command line is if only CONFIG is given. ConfigError for wrong options.
    """
    arguments = list(argv)
    if config in arguments:
        # CONFIG comes first: after an option it would be taken for the option's value.
        arguments.remove(config)
        arguments.insert(0, config)
    command = default(_default_experiment(arguments, config))
    try:
        parsed = tyro.cli(
            type(command),
            prog=prog,
            args=arguments,
            default=command,
            registry=PATHS,
            config=(tyro.conf.AvoidSubcommands,),
        )
    except ValidationError as error:
        raise explain(error, "command line") from error
    check_values(parsed)
    return parsed


def _default_experiment(argv: Sequence[str], config: str) -> Experiment:
    """The YAML, with the types of sections that the options ask for.

    tyro offers only the fields of its default's types. It also builds the sections one by one and
    cannot name a wrong value's place in the whole, so the options are checked here first.
    """
    experiment = load_experiment(config)
    given = option_texts(argv, experiment)
    if any(name.startswith(SHAPING) for name in given):
        # All of the section, which only fits together; a part of `training` would lose the rest.
        own = {n: v for n, v in given.items() if n.startswith("image_tokenizer.")}
        own = {n: v for n, v in own.items() if ".training." not in n}
        experiment = load_experiment(config, own)
    if overrides := option_texts(argv, experiment):
        load_experiment(config, overrides)
    return experiment

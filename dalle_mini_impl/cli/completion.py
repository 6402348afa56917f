"""completion SHELL

Prints a script by which bash, zsh or fish completes commands, options and files. In ~/.bashrc or
~/.zshrc: source <(dalle completion bash). In fish: dalle completion fish | source.
"""

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress

from dalle_mini_impl.config import ConfigError

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9.-]*[a-z0-9](?!\.?[\w-])")


def main(argv: Sequence[str]) -> None:
    """Print the script for one shell."""
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return
    scripts = {"bash": bash, "zsh": zsh, "fish": fish}
    if len(argv) != 1 or argv[0] not in scripts:
        given = " ".join(argv) or "nothing"
        raise ConfigError(f"{given}: name one shell: {', '.join(scripts)}")
    print(scripts[argv[0]](options_of_commands()), end="")


def options_of_commands() -> dict[str, list[str]]:
    """The options of every command, as its help names them."""
    from dalle_mini_impl.cli import COMMANDS
    from dalle_mini_impl.cli import main as dalle
    from dalle_mini_impl.experiment import Experiment, field_paths

    fields = [f"--{name.replace('_', '-')}" for name in field_paths(Experiment)]
    options = {}
    for command in COMMANDS:
        text = io.StringIO()
        arguments = ["check"] if command == "data" else []
        with redirect_stdout(text), suppress(SystemExit):
            dalle([command, *arguments, "--help"])
        more = fields if command in ("train", "plan") else []
        options[command] = sorted({*OPTION.findall(text.getvalue()), *more, "--help"})
    return options


def bash(options: Mapping[str, Sequence[str]]) -> str:
    """A function for `complete`."""
    cases = "\n".join(
        f'        {command}) words="{" ".join(own)}" ;;' for command, own in options.items()
    )
    return f"""\
_dalle() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" words=""
    if (( COMP_CWORD == 1 )); then
        words="{" ".join(options)}"
    elif [[ $word == -* ]]; then
        case "${{COMP_WORDS[1]}}" in
{_indented(cases)}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _dalle dalle
"""


def zsh(options: Mapping[str, Sequence[str]]) -> str:
    """A function for `compdef`."""
    cases = "\n".join(
        f"        {command}) compadd -- {' '.join(own)} ;;" for command, own in options.items()
    )
    return f"""\
_dalle() {{
    if (( CURRENT == 2 )); then
        compadd -- {" ".join(options)}
    elif [[ $PREFIX == -* ]]; then
        case $words[2] in
{_indented(cases)}
        esac
    else
        _files
    fi
}}
compdef _dalle dalle
"""


def fish(options: Mapping[str, Sequence[str]]) -> str:
    """A line for each command and option."""
    lines = [f"complete -c dalle -n __fish_use_subcommand -f -a '{' '.join(options)}'"]
    for command, own in options.items():
        for option in own:
            name = option.removeprefix("--")
            lines.append(f"complete -c dalle -n '__fish_seen_subcommand_from {command}' -l {name}")
    return "\n".join(lines) + "\n"


def _indented(lines: str) -> str:
    return "\n".join(f"    {line}" for line in lines.splitlines())

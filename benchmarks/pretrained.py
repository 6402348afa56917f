"""Trains, judges and exports the models that lie in the package, each with its card.

    python -m benchmarks.pretrained [shapes] [emoji]

Without names, both. A run that is there already is continued, so that judging can be repeated.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from benchmarks.record import environment
from dalle_mini_impl.evaluation.report.card import card, samples_sheet
from dalle_mini_impl.runs.archive import CARD, SAMPLES
from dalle_mini_impl.runs.export import export
from dalle_mini_impl.runs.folder import RunFolder

ROOT = Path(__file__).resolve().parent.parent
PACKAGED = ROOT / "dalle_mini_impl" / "pretrained"
LICENSES = {
    "shapes": "The scenes are rendered by this project; there is no other data.",
    "emoji": "Trained on images of Noto Color Emoji, © Google, SIL Open Font License 1.1, "
    "and names from Unicode CLDR, Unicode License.",
}
TRAINING: dict[str, tuple[str, ...]] = {"shapes": (), "emoji": ()}
"""Options of `dalle train NAME` that differ from the shipped configuration."""
JUDGING = {"shapes": ("--suite", "shapes"), "emoji": ("--split", "held_out")}
"""Options of `dalle evaluate`."""


@dataclass(frozen=True)
class Arguments:
    """Train, judge and export the models that lie in the package."""

    names: Annotated[tuple[Literal["shapes", "emoji"], ...], tyro.conf.Positional] = (
        "shapes",
        "emoji",
    )
    """Which of them."""
    emoji: Path = Path("data/emoji")
    """The collection that `dalle fetch-data emoji` builds."""
    runs: Path = Path("runs/pretrained")
    """Folder of the runs."""


def main(argv: Sequence[str] | None = None) -> None:
    """Make the models that were asked for."""
    arguments = tyro.cli(Arguments, args=argv, prog="python -m benchmarks.pretrained")
    for name in arguments.names:
        data = ("--data.path", str(arguments.emoji)) if name == "emoji" else ()
        run = arguments.runs / name
        dalle("train", name, "--run", str(run), *TRAINING[name], *data)
        print(package(RunFolder.open(run), name, judged(run, name)))


def judged(run: Path, name: str) -> str:
    """What `dalle evaluate` prints of the run."""
    return dalle("evaluate", "--run", str(run), *JUDGING[name])


def package(run: RunFolder, name: str, judgment: str) -> Path:
    """Export the run into the package in place of an earlier model; returns the folder."""
    conditions = environment(torch.device("cpu"), [])
    command = f"python -m benchmarks.pretrained {name}"
    options = " ".join(TRAINING[name])
    text = card(run, f"pretrained:{name}", "bfloat16") + "\n".join(
        [
            "\n## How it was made\n",
            f"`{command}`, which trains with `dalle train {name} {options}".rstrip() + "`, "
            f"at commit {conditions['commit']} with torch {conditions['torch']} on "
            f"{conditions['threads']} cores of {conditions['cpu']}.",
            f"\n{LICENSES[name]}",
            f"\n## What `dalle evaluate {' '.join(JUDGING[name])}` says of the run\n",
            f"```\n{judgment.strip()}\n```\n",
        ]
    )
    extra = {CARD: text.encode()}
    sheet = samples_sheet(run)
    if sheet is not None:
        extra[SAMPLES] = sheet
    target = PACKAGED / name
    shutil.rmtree(target, ignore_errors=True)
    export(run, target, torch.bfloat16, extra)
    return target


def dalle(*arguments: str) -> str:
    """Run a command of this checkout, show what it prints and return it."""
    code = "import sys; from dalle_mini_impl.cli import main; sys.exit(main(sys.argv[1:]))"
    lines = []
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        raise SystemExit(process.returncode)
    return "".join(lines)


if __name__ == "__main__":
    main()

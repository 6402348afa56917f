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
from dalle_mini_impl.data.messages import counted
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
TRAINING = {
    "shapes": "",
    "emoji": "--transformer.depth 4 --transformer.width 160 --transformer.ffn-width 432 "
    "--clip.embedding 64 --clip.image-width 32 --clip.image-blocks 1 "
    "--clip.text-width 64 --clip.text-depth 2 --clip.text-heads 2 "
    "--transformer.preceding-tokens 2 --clip.preceding-tokens 2 "
    "--image-tokenizer.autoencoder.width 64 --image-tokenizer.quantizer.codes 512 256",
}
"""Options of `dalle train NAME`: smaller models than in the shipped configuration of emoji."""
JUDGING = {
    "shapes": ("--suite", "shapes", "--per-task", "50", "--candidates", "1", "16", "--seed", "1"),
    "emoji": ("--split", "held_out"),
}
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
    zip: bool = False
    """Pack each model as a zip, a fifth smaller, in place of a folder."""


def main(argv: Sequence[str] | None = None) -> None:
    """Make the models that were asked for."""
    arguments = tyro.cli(Arguments, args=argv, prog="python -m benchmarks.pretrained")
    for name in arguments.names:
        data = ("--data.path", str(arguments.emoji)) if name == "emoji" else ()
        run = arguments.runs / name
        dalle("train", name, "--run", str(run), *TRAINING[name].split(), *data)
        print(package(RunFolder.open(run), name, judged(run, name), arguments.zip))


def judged(run: Path, name: str) -> str:
    """What `dalle evaluate` prints of the run."""
    return dalle("evaluate", "--run", str(run), *JUDGING[name])


def package(run: RunFolder, name: str, judgment: str, as_zip: bool) -> Path:
    """Export the run into the package in place of an earlier model; returns where it is."""
    where = environment(torch.device("cpu"), [])
    text = f"""{card(run, f"pretrained:{name}", "bfloat16")}
## How it was made

`python -m benchmarks.pretrained {name}`, at commit {where["commit"]} with torch {where["torch"]} on
{counted(where["threads"], "core")} of {where["cpu"]}. It trains with

```
{f"dalle train {name} {TRAINING[name]}".strip()}
```

{LICENSES[name]}

## What `dalle evaluate {" ".join(JUDGING[name])}` says of the run

```
{judgment.strip()}
```
"""
    extra = {CARD: text.encode()}
    sheet = samples_sheet(run)
    if sheet is not None:
        extra[SAMPLES] = sheet
    folder, packed = PACKAGED / name, PACKAGED / f"{name}.zip"
    shutil.rmtree(folder, ignore_errors=True)
    packed.unlink(missing_ok=True)
    target = packed if as_zip else folder
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

"""Checkpoints of a stage: CHECKPOINTS/step-N with its tensors and its place in the run.

A checkpoint is written under a temporary name and renamed, so a folder called step-N is whole;
the last two are kept. Tensors are read without running code.
"""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dalle_mini_impl.config import ConfigError


@dataclass(frozen=True)
class TrainState:
    """How far a stage has come."""

    step: int = 0
    """Optimizer steps done."""
    elapsed: float = 0.0
    """Seconds spent, in all sessions."""
    overhead: float = 0.0
    """Seconds of them before the first step of each session (compilation)."""
    processes: int = 1
    """Processes that each drew a batch per step."""


def save_checkpoint(folder: Path, place: TrainState, state: dict[str, Any], keep: int = 2) -> Path:
    """Write `state` as folder/step-N and remove all but the last `keep` checkpoints."""
    target = folder / f"step-{place.step}"
    temporary = folder / f".{target.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        torch.save(state, temporary / "state.pt")
        (temporary / "place.json").write_text(json.dumps(asdict(place)), encoding="utf-8")
        if target.exists():  # of an earlier session: equal but for the clock
            shutil.rmtree(target)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in list_checkpoints(folder)[keep:]:
        shutil.rmtree(old)
    return target


def list_checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, the newest first."""
    found = [path for path in folder.glob("step-*") if path.name[5:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[5:]), reverse=True)


def load_checkpoint(
    folder: Path, restore: Callable[[dict[str, Any]], None], device: torch.device
) -> TrainState | None:
    """Hand the newest readable checkpoint to `restore`; its place, or None where there is none.

    ConfigError if it does not fit what is being trained.
    """
    for path in list_checkpoints(folder):
        try:
            place = TrainState(**json.loads((path / "place.json").read_text(encoding="utf-8")))
            state = torch.load(path / "state.pt", map_location=device, weights_only=True)
        except (
            OSError,
            ValueError,
            TypeError,
            EOFError,
            RuntimeError,
            pickle.PickleError,
        ) as error:
            print(f"{path} cannot be read ({error}); trying the checkpoint before it")
            continue
        try:
            restore(state)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"{path} does not fit this configuration ({reason}); restore the configuration it "
                "was made with, or begin the stage anew with --no-resume"
            ) from error
        return place
    return None


def clear_checkpoints(folder: Path) -> None:
    """Remove every checkpoint, and what interrupted writes left."""
    for path in [*folder.glob("step-*"), *folder.glob(".step-*")]:
        shutil.rmtree(path, ignore_errors=True)

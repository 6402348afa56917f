"""Checkpoints of a stage: folders called step-N with a `TrainState` and all tensors.

A checkpoint is written under a temporary name and then renamed, so a folder called step-N is always
complete. It has a digest of its files, so damage is noticed. Tensors are read without running code.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dalle_mini_impl.config import ConfigError, TrainingConfig
from dalle_mini_impl.files import PART, atomic_folder, file_digest
from dalle_mini_impl.training.early_stopping import Best, Decay

STATE = "state.json"
TENSORS = "tensors.pt"
DIGEST = "digest"
"""The file with the digest of the other two."""
KEPT = 2
"""Checkpoints of a stage that are kept."""


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
    """Processes, each of which has its own batch in a step."""
    best: Best | None = None
    """The step with the lowest held-out loss; none before one was measured."""
    decay: Decay | None = None
    """The end of a run that stopped early."""

    def progress(self, config: TrainingConfig) -> float:
        """Share of the run that is done, in [0, 1]: by steps or by time, whichever is further."""
        done = self.step / config.steps
        if config.minutes is not None:
            # Compilation uses up some of the minutes; the schedules span those that remain.
            budget = max(60 * config.minutes - self.overhead, 1e-9)
            done = max(done, (self.elapsed - self.overhead) / budget)
        if self.decay is not None:
            done = self.decay.progress(self.step, done)
        return min(1.0, done)


def read_state(checkpoint: Path) -> TrainState:
    """The state of one checkpoint."""
    values = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    for name, kind in (("best", Best), ("decay", Decay)):
        if values.get(name) is not None:
            values[name] = kind(**values[name])
    return TrainState(**values)


def written_at(checkpoint: Path) -> float:
    """When a checkpoint was written, in seconds since the epoch."""
    return (checkpoint / STATE).stat().st_mtime


def save_checkpoint(folder: Path, state: TrainState, tensors: dict[str, Any]) -> Path:
    """Write folder/step-N and remove all but the last checkpoints."""
    target = folder / f"step-{state.step}"
    for part in folder.glob(f".step-*{PART}"):  # of a killed process
        shutil.rmtree(part, ignore_errors=True)
    with atomic_folder(target) as temporary:
        torch.save(tensors, temporary / TENSORS)
        (temporary / STATE).write_text(json.dumps(asdict(state)), encoding="utf-8")
        digest = file_digest(temporary / STATE, temporary / TENSORS)
        (temporary / DIGEST).write_text(digest, encoding="utf-8")
    for old in list_checkpoints(folder)[KEPT:]:
        shutil.rmtree(old)
    return target


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, the newest first."""
    found = [path for path in folder.glob("step-*") if path.name[5:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[5:]), reverse=True)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that is not damaged."""
    return next((path for path in list_checkpoints(folder) if _damage(path) is None), None)


def _damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files, by their digest; None if nothing is."""
    try:
        noted = (checkpoint / DIGEST).read_text(encoding="utf-8")
        if noted == file_digest(checkpoint / STATE, checkpoint / TENSORS):
            return None
    except (OSError, ValueError) as error:
        return str(error)
    return "its contents differ from its digest"


def load_checkpoint(
    folder: Path, restore: Callable[[dict[str, Any]], None], device: torch.device
) -> TrainState | None:
    """Hand the tensors of the newest readable checkpoint to `restore`.

    Returns its state, or None where there is no checkpoint. ConfigError if it does not fit what is
    being trained, or was written by another version.
    """
    for path in list_checkpoints(folder):
        damage = _damage(path)
        if damage is not None:
            print(f"{path} is damaged ({damage}); trying the checkpoint before it")
            continue
        state = read_state(path)
        tensors = torch.load(path / TENSORS, map_location=device, weights_only=True)
        try:
            restore(tensors)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"{path} does not fit this configuration ({reason}); restore the configuration it "
                "was made with, or start the stage again with --no-resume"
            ) from error
        return state
    return None


def clear_checkpoints(folder: Path) -> None:
    """Remove every checkpoint, and what interrupted writes left."""
    for path in [*folder.glob("step-*"), *folder.glob(".step-*")]:
        shutil.rmtree(path, ignore_errors=True)

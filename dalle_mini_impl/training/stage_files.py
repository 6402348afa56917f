"""The files that one training stage reads and writes in the run folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from dalle_mini_impl.files import write_text
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.stages import STAGES
from dalle_mini_impl.training.checkpoints import TrainState, list_checkpoints, save_checkpoint

MADE_FROM = "made_from.json"


@dataclass(frozen=True)
class StageFiles:
    """Where a stage keeps its weights, metrics and checkpoints."""

    run: RunFolder
    stage: str
    made_from: Mapping[str, str] = field(default_factory=dict)
    """Hashes of what the stage is trained on, noted in its weights and beside its checkpoints."""

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.run.checkpoints(self.stage)

    def save_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Write the trained weights, under the stage's own name unless the table has another."""
        known = STAGES.get(self.stage)
        name = known.weights if known and known.weights else self.stage
        self.run.save_weights(name, tensors, **self.made_from)

    def checkpoints_are_outdated(self) -> bool:
        """Whether there are checkpoints of training on something else than `made_from`."""
        note = self.checkpoints / MADE_FROM
        if self.newest_checkpoint() is None or not note.is_file():
            return False
        try:
            return json.loads(note.read_text(encoding="utf-8")) != dict(self.made_from)
        except ValueError:
            return True  # Damaged: nobody knows what they are of.

    def newest_checkpoint(self) -> Path | None:
        """The last complete checkpoint."""
        return next(iter(list_checkpoints(self.checkpoints)), None)

    def save_checkpoint(self, state: TrainState, tensors: dict[str, Any]) -> None:
        """Write a checkpoint and note what it was made from."""
        write_text(self.checkpoints / MADE_FROM, json.dumps(dict(self.made_from)))
        save_checkpoint(self.checkpoints, state, tensors)

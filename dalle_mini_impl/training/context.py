"""What the stages of a run share: its data, vocabulary and processes."""

from datetime import timedelta
from functools import cached_property

from accelerate import PartialState

from dalle_mini_impl.captions import CaptionTokenizer
from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.data.batches import BatchOrder, ImageBatches
from dalle_mini_impl.data.caption_table import CaptionTable
from dalle_mini_impl.data.negatives import Negative
from dalle_mini_impl.data.preparation import prepare
from dalle_mini_impl.data.splits import Split
from dalle_mini_impl.data.store import Store
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.training.processes import cpu_only

LEAST_VALIDATION = 8
"""Validation images below which a held-out loss says too little."""


class StageContext:
    """A run with its data, its vocabulary and the processes that train it."""

    def __init__(self, run: RunFolder, resume: bool = True) -> None:
        self.run, self.resume, self.experiment = run, resume, run.experiment
        # The other processes wait while one decodes or encodes a whole collection.
        self.processes = PartialState(cpu=cpu_only(), timeout=timedelta(hours=12))
        self.device = self.processes.device

    def say(self, message: str) -> None:
        """A line from the main process."""
        if self.processes.is_main_process:
            print(message, flush=True)

    @cached_property
    def store(self) -> Store:
        """The training images, decoded once."""
        store = self.split("train")
        with self.processes.main_process_first():
            self.run.record_fingerprint(store.fingerprint)
        return store

    @cached_property
    def validation(self) -> Store:
        """The images that stages are measured on; none of them trains.

        With too few, says once what is lost.
        """
        store = self.split("validation")
        if len(store) < LEAST_VALIDATION:
            self.say(
                f"WARNING: {len(store)} validation images, {LEAST_VALIDATION} are needed: no "
                "held-out loss is measured, so training cannot see that it learns images by "
                "heart, does not stop early, and keeps its last weights; raise data.held_out "
                f"({self.experiment.data.held_out:g}) or set data.held_out_path"
            )
        return store

    def split(self, split: Split) -> Store:
        """Images of a split."""
        with self.processes.main_process_first():
            return prepare(self.experiment.data, split, self.run.cache / "images", self.say)

    @cached_property
    def vocabulary(self) -> CaptionTokenizer:
        """The run's caption vocabulary."""
        return self.run.captions()

    def table(self, dropout: bool) -> CaptionTable:
        """The training captions; with BPE-dropout a caption is encoded again at each use."""
        dropout = dropout and self.experiment.captions.dropout > 0
        return CaptionTable(self.store.captions, self.vocabulary, dropout)

    def order(self, training: TrainingConfig) -> BatchOrder:
        """The images that this process takes at each step."""
        rank, world = self.processes.process_index, self.processes.num_processes
        return BatchOrder(training.batch_size, training.seed, rank, world)

    def image_batches(
        self,
        training: TrainingConfig,
        dropout: bool,
        negative: Negative | None = None,
        negatives: int = 0,
    ) -> ImageBatches:
        """This process's batches of images and captions, with `negatives` wrong ones each."""
        table, order = self.table(dropout), self.order(training)
        return ImageBatches(self.store, table, self.experiment.data, order, negative, negatives)

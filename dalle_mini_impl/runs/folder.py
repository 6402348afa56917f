"""The run folder: everything that sampling needs, in files that run no code when they are read.

    config.yaml         the experiment, then a record: format, package version, data fingerprint
    captions.json       the vocabulary
    NAME.safetensors    EMA weights of image_tokenizer, dalle and clip; also perceptual,
                        if a VQGAN trained a network for its perceptual loss
    metrics.jsonl       logged figures; previews/ and report.html show them
    evaluation/         results of `dalle evaluate`
    index/              what `dalle index` embedded
    tensorboard/        the metrics again, for TensorBoard
    checkpoints/STAGE/  state to resume training from; sampling never reads it
    locks/              who trains which stage now
    cache/              decoded images and codes; may be deleted

Files are written under a temporary name and renamed, so a reader never sees an incomplete one.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from dalle_mini_impl.captions import CaptionTokenizer
from dalle_mini_impl.experiment import (
    FORMAT,
    Experiment,
    check_format,
    load_experiment,
    read_settings,
)
from dalle_mini_impl.files import atomic_write, write_text
from dalle_mini_impl.runs.metrics import MetricsLog
from dalle_mini_impl.runs.stages import WEIGHTS
from dalle_mini_impl.runs.weights import RunError, WeightsFolder, first_few
from dalle_mini_impl.shipped.commands import command
from dalle_mini_impl.version import package_version


class RunFolder(WeightsFolder):
    """One run on disk. Make one with `create` or `open`."""

    def __init__(
        self,
        path: Path,
        experiment: Experiment,
        fingerprint: str | None,
        name: str | None = None,
    ) -> None:
        super().__init__(path)
        self.name = name or str(path)
        """What messages call the run."""
        self.read_only = name is not None
        """Whether it lies in the package or a zip, where no results can be kept."""
        self.unpacked_in: TemporaryDirectory[str] | None = None
        """Where a zip was unpacked; removed together with this object."""
        self.experiment = experiment
        self.fingerprint = fingerprint
        """Fingerprint of the training data; none until it has been prepared."""
        self._metrics = MetricsLog(path / "metrics.jsonl")

    @classmethod
    def create(
        cls, path: str | Path, experiment: Experiment, fingerprint: str | None = None
    ) -> "RunFolder":
        """Make the folder if it is missing, and write its config.yaml."""
        run = cls(Path(path), experiment, fingerprint)
        run.path.mkdir(parents=True, exist_ok=True)
        run._write_config()
        return run

    @classmethod
    def open(cls, path: str | Path, name: str | None = None) -> "RunFolder":
        """Read an existing run; RunError if there is none, ConfigError if its YAML is wrong.

        name: what the user calls a run that is not one of the user's folders.
        """
        path = Path(path)
        config = path / "config.yaml"
        if not config.is_file():
            names = sorted(other.parent.name for other in path.parent.glob("*/config.yaml"))
            runs = f"runs in {path.parent}: {first_few(names) if names else 'none'}"
            if not path.is_dir():
                raise RunError(f"{path}: not a run (there is no such folder); {runs}")
            raise RunError(f"{path}: not a run ({config.name} is missing); {runs}")
        record = read_settings(config).get("run") or {}
        check_format(record, str(config))
        return cls(path, load_experiment(config), record.get("data_fingerprint"), name)

    def record_fingerprint(self, fingerprint: str) -> None:
        """Note which data the run is trained on; RunError if it was other data before."""
        if self.fingerprint not in (None, fingerprint):
            raise RunError(
                f"{self.path}: the data changed since this run began (fingerprint "
                f"{self.fingerprint}, now {fingerprint}); use another --run for the new data"
            )
        if self.fingerprint is None:
            self.fingerprint = fingerprint
            self._write_config()

    def _write_config(self) -> None:
        record = {
            "format": FORMAT,
            "package_version": package_version(),
            "data_fingerprint": self.fingerprint,
        }
        text = self.experiment.to_yaml() + yaml.safe_dump({"run": record}, sort_keys=False)
        write_text(self.path / "config.yaml", text)

    # Folders, made when first asked for.

    @property
    def previews(self) -> Path:
        """Preview images."""
        return self._folder("previews")

    @property
    def cache(self) -> Path:
        """Decoded images and codes; may be deleted at any time between stages."""
        return self._folder("cache")

    def checkpoints(self, stage: str) -> Path:
        """State from which `stage` is resumed."""
        return self._folder(f"checkpoints/{stage}")

    def _folder(self, name: str) -> Path:
        folder = self.path / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    # Captions.

    def save_captions(self, tokenizer: CaptionTokenizer) -> None:
        """Write the vocabulary."""
        with atomic_write(self.path / "captions.json") as temporary:
            tokenizer.save(temporary)

    def has_captions(self) -> bool:
        """Whether the vocabulary exists."""
        return (self.path / "captions.json").is_file()

    def captions(self) -> CaptionTokenizer:
        """The run's vocabulary."""
        if not self.has_captions():
            raise RunError(
                f"{self.path}: no captions.json yet; run "
                f"`{command('train')} --run {self.path} --stage captions`"
            )
        return CaptionTokenizer.load(self.path / "captions.json")

    def discard(self, stage: str) -> None:
        """Remove a stage's result and checkpoints."""
        vocabulary = self.path / "captions.json"
        result = vocabulary if stage == "captions" else self.weights_path(WEIGHTS[stage])
        result.unlink(missing_ok=True)
        shutil.rmtree(self.path / "checkpoints" / stage, ignore_errors=True)
        if stage == "image_tokenizer":
            self.weights_path("perceptual").unlink(missing_ok=True)
            shutil.rmtree(self.path / "checkpoints" / "perceptual", ignore_errors=True)

    # Metrics.

    def log(self, stage: str, step: int, **values: Any) -> None:
        """Append a line to metrics.jsonl (numbers, text, lists, arrays, tensors)."""
        self._metrics.append(stage, step, **values)

    def metrics(self) -> list[dict[str, Any]]:
        """Logged lines in order, without those that a resumption superseded."""
        return self._metrics.records()

    def mirror_to_tensorboard(self) -> None:
        """Also write every logged number for TensorBoard, under tensorboard/."""
        self._metrics.mirror_to_tensorboard(self.path / "tensorboard")

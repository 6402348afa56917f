"""The run folder: everything that sampling needs, in files that run no code when they are read.

    config.yaml                  the experiment, with the package version and data fingerprint
    captions.json                the vocabulary
    NAME.safetensors             weights of image_tokenizer, dalle and clip (the averaged ones);
                                 perceptual, where a VQGAN's loss needed a network of its own
    metrics.jsonl  previews/  report.html
    evaluation/  index/          figures of `dalle evaluate`; what `dalle index` embedded
    tensorboard/                 the metrics once more, where asked for
    checkpoints/STAGE/           state to resume from; sampling never reads it
    cache/                       decoded images and codes; may be deleted

Files are written under a temporary name and renamed, so a reader never meets half of one.
"""

import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from dalle_mini_impl.captions import CaptionTokenizer
from dalle_mini_impl.experiment import Experiment, load_experiment
from dalle_mini_impl.files import atomic_write, tensor_digest
from dalle_mini_impl.runs.metrics import MetricsLog

WEIGHTS = {"image_tokenizer": "image_tokenizer", "transformer": "dalle", "clip": "clip"}
"""The weights that each training stage leaves."""


class RunError(ValueError):
    """A run folder that is missing, incomplete or at odds with its configuration."""


class RunFolder:
    """One run on disk. Make one with `create` or `open`."""

    def __init__(self, path: Path, experiment: Experiment, fingerprint: str | None) -> None:
        self.path = path
        self.experiment = experiment
        self.fingerprint = fingerprint
        """Fingerprint of the training data; none until it has been prepared."""
        self._metrics = MetricsLog(path / "metrics.jsonl")

    @classmethod
    def create(
        cls, path: str | Path, experiment: Experiment, fingerprint: str | None = None
    ) -> "RunFolder":
        """Make the folder where it is missing and write its config.yaml."""
        run = cls(Path(path), experiment, fingerprint)
        run.path.mkdir(parents=True, exist_ok=True)
        run._write_config()
        return run

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """Read an existing run; RunError if there is none, ConfigError if its YAML is wrong."""
        path = Path(path)
        config = path / "config.yaml"
        if not config.is_file():
            raise RunError(f"{path}: not a run ({config.name} is missing); {_runs_beside(path)}")
        experiment = load_experiment(config)
        record = yaml.safe_load(config.read_text(encoding="utf-8")).get("run") or {}
        return cls(path, experiment, record.get("data_fingerprint"))

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
        record = {"package_version": _version(), "data_fingerprint": self.fingerprint}
        text = self.experiment.to_yaml() + yaml.safe_dump({"run": record}, sort_keys=False)
        with atomic_write(self.path / "config.yaml") as temporary:
            temporary.write_text(text, encoding="utf-8")

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
                f"`python train.py --run {self.path} --stage captions`"
            )
        return CaptionTokenizer.load(self.path / "captions.json")

    # Weights.

    def weights_path(self, name: str) -> Path:
        """Where the weights called `name` are or will be."""
        return self.path / f"{name}.safetensors"

    def has_weights(self, name: str) -> bool:
        """Whether the weights called `name` exist."""
        return self.weights_path(name).is_file()

    def save_weights(
        self, name: str, module_state: Mapping[str, torch.Tensor], **notes: str
    ) -> None:
        """Write a state dict with a hash of its contents, and `notes` on what it was made from."""
        # Cloned because the format refuses tensors that share memory.
        tensors = {key: value.detach().cpu().clone() for key, value in module_state.items()}
        tensors = {key: value.contiguous() for key, value in tensors.items()}
        note = {
            "format": "pt",
            "hash": tensor_digest(tensors),
            "package_version": _version(),
            **notes,
        }
        with atomic_write(self.weights_path(name)) as temporary:
            save_file(tensors, temporary, metadata=note)

    def load_weights(self, name: str, module: nn.Module) -> None:
        """Fill `module`; RunError unless every tensor is there, fits, and is as it was written."""
        path = self.weights_path(name)
        tensors, note = self._read_weights(name)
        expected = module.state_dict()
        complaints = {
            "missing": sorted(expected.keys() - tensors.keys()),
            "unexpected": sorted(tensors.keys() - expected.keys()),
            "of another shape": [
                f"{key} {list(tensors[key].shape)} where {list(value.shape)} is configured"
                for key, value in expected.items()
                if key in tensors and tensors[key].shape != value.shape
            ],
        }
        wrong = "; ".join(f"{kind}: {_few(keys)}" for kind, keys in complaints.items() if keys)
        if wrong:
            raise RunError(
                f"{path}: the weights do not fit {self.path / 'config.yaml'} ({wrong}); restore "
                "the configuration they were trained with, or train in another --run"
            )
        if note.get("hash") not in (None, tensor_digest(tensors)):
            raise RunError(f"{path}: damaged (its contents differ from its hash); copy it again")
        module.load_state_dict(tensors, strict=True)

    def weights_hash(self, name: str) -> str:
        """Identifies the weights' values: the key of whatever is computed from them."""
        return self._note(name).get("hash") or tensor_digest(self._read_weights(name)[0])

    def fits_image_tokenizer(self, name: str) -> bool:
        """Whether the weights called `name` were trained with the run's present image tokenizer.

        True as well where they do not say, or where the run has no image tokenizer.
        """
        noted = self._note(name).get("image_tokenizer")
        if noted is None or not self.has_weights("image_tokenizer"):
            return True
        return noted == self.weights_hash("image_tokenizer")

    def discard(self, stage: str) -> None:
        """Remove a stage's result and checkpoints."""
        vocabulary = self.path / "captions.json"
        result = vocabulary if stage == "captions" else self.weights_path(WEIGHTS[stage])
        result.unlink(missing_ok=True)
        shutil.rmtree(self.path / "checkpoints" / stage, ignore_errors=True)
        if stage == "image_tokenizer":
            self.weights_path("perceptual").unlink(missing_ok=True)
            shutil.rmtree(self.path / "checkpoints" / "perceptual", ignore_errors=True)

    def _note(self, name: str) -> dict[str, str]:
        try:
            with safe_open(self.weights_path(name), framework="pt") as file:
                return file.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise self._unreadable(name, error) from error

    def _read_weights(self, name: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        try:
            with safe_open(self.weights_path(name), framework="pt") as file:
                names = list(file.keys())
                return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise self._unreadable(name, error) from error

    def _unreadable(self, name: str, error: Exception) -> RunError:
        path = self.weights_path(name)
        if path.is_file():
            return RunError(f"{path}: not readable as safetensors ({error}); copy it again")
        present = ", ".join(sorted(file.stem for file in self.path.glob("*.safetensors"))) or "none"
        return RunError(
            f"{path}: no such weights (there: {present}); "
            f"`python train.py --run {self.path}` trains what is missing"
        )

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


def newest(root: str | Path = "runs", weights: str | None = None) -> RunFolder:
    """The run under `root` last written to, among those that have `weights` if given."""
    candidates = [
        config.parent
        for config in Path(root).glob("*/config.yaml")
        if weights is None or (config.parent / f"{weights}.safetensors").is_file()
    ]
    if not candidates:
        lacking = "" if weights is None else f" with {weights}.safetensors"
        raise RunError(
            f"{root}/: no run{lacking} there; train one (`python train.py configs/shapes.yaml`) "
            "or name one with --run"
        )
    return RunFolder.open(max(candidates, key=_last_written))


def _last_written(run: Path) -> float:
    files = [run / "config.yaml", run / "metrics.jsonl", *run.glob("*.safetensors")]
    return max(file.stat().st_mtime for file in files if file.is_file())


def _runs_beside(path: Path) -> str:
    names = sorted(config.parent.name for config in path.parent.glob("*/config.yaml"))
    return f"runs in {path.parent}: {_few(names) if names else 'none'}"


def _few(names: list[str], most: int = 4) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _version() -> str:
    try:
        return metadata.version("dalle-mini-impl")
    except metadata.PackageNotFoundError:
        return "not installed"

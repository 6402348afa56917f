"""An independent judge of CIFAR-10 images: a small convolutional classifier of real ones.

    python -m benchmarks.cifar_classifier train DATA --out classifier.safetensors
    python -m benchmarks.cifar_classifier judge RUN --classifier classifier.safetensors
    CIFAR_CLASSIFIER=classifier.safetensors \
        dalle evaluate --run RUN --features benchmarks.cifar_classifier:embed

`train` sees the real training images only and prints its accuracy on the real test images.
`judge` samples every class from the run's first caption template and prints the share of images
that the classifier assigns to the class that was asked for. `embed` gives its features to
whatever compares sets of images.
"""

import os
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import tyro
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.cifar import CLASSES, augmented, read
from dalle_mini_impl.config import ConfigError, TrainingConfig
from dalle_mini_impl.precision import autocast, choose_precision
from dalle_mini_impl.training.optimizers import build_optimizer, set_learning_rate


class Stage(nn.Module):
    """Two 3×3 convolutions with batch norm, the image halved between them."""

    def __init__(self, before: int, width: int):
        super().__init__()
        self.first = nn.Conv2d(before, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        # A short run needs statistics that follow the weights closely.
        self.first_norm = nn.BatchNorm2d(width, momentum=0.4)
        self.second_norm = nn.BatchNorm2d(width, momentum=0.4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.first_norm(F.max_pool2d(self.first(x), 2)))
        return F.gelu(self.second_norm(self.second(x)))


class Classifier(nn.Module):
    """Patches whitened by fixed filters, three stages, the maximum over places, a linear head.

    The plan of Jordan 2024, "94% on CIFAR-10 in 3.29 seconds" (arXiv 2404.00498), at less width.
    """

    def __init__(self, widths: tuple[int, int, int] = (48, 192, 192)):
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        self.whiten.weight.requires_grad_(False)
        before = (24, *widths[:2])
        self.stages = nn.ModuleList(Stage(b, w) for b, w in zip(before, widths, strict=True))
        self.head = nn.Linear(widths[-1], 10, bias=False)
        self.head.output_head = True

    @classmethod
    def load(cls, path: Path) -> "Classifier":
        """The classifier of a file of `train`, ready to judge."""
        weights = load_file(path)
        first, second, third = (len(weights[f"stages.{i}.first.weight"]) for i in range(3))
        model = cls((first, second, third))
        model.load_state_dict(weights)
        return model.eval()

    def features(self, images: Tensor) -> Tensor:
        """One vector for each of the images `b 3 32 32` in [0, 1]."""
        x = F.gelu(self.whiten((images * 4 - 2).to(memory_format=torch.channels_last)))
        for stage in self.stages:
            x = stage(x)
        return x.amax(dim=(2, 3)).float()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images)) / 9


def whitening_filters(images: Tensor) -> Tensor:
    """`24 3 2 2`: the principal directions of 2×2 patches at unit variance, and their negatives."""
    patches = F.unfold(images * 4 - 2, 2).movedim(1, 2).reshape(-1, 12)
    patches = patches - patches.mean(dim=0)
    variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (directions / (variances + 5e-4).sqrt()).T.reshape(12, 3, 2, 2)
    return torch.cat((filters, -filters))


@lru_cache(maxsize=1)
def named_classifier(path: str) -> Classifier:
    """The classifier at `path`, kept for the next call."""
    return Classifier.load(Path(path))


def embed(images: Tensor) -> Tensor:
    """Features of images in [0, 1] by the classifier that CIFAR_CLASSIFIER names.

    Raises ConfigError where the environment names none.
    """
    path = os.environ.get("CIFAR_CLASSIFIER")
    if not path:
        raise ConfigError(
            "CIFAR_CLASSIFIER is not set: name the file of `python -m benchmarks.cifar_classifier "
            "train DATA --out FILE` in it"
        )
    resized = F.interpolate(images, (32, 32), mode="bilinear", antialias=True)
    return named_classifier(path).features(resized)


@dataclass(frozen=True)
class Train:
    """Train the classifier on real images."""

    data: Annotated[Path, tyro.conf.Positional]
    """Folder with CIFAR-10's Parquet files."""
    out: Path = Path("cifar_classifier.safetensors")
    epochs: float = 12
    widths: tuple[int, int, int] = (48, 192, 192)
    """Channels of the three stages."""
    batch_size: int = 500
    learning_rate: float = 0.01
    muon_learning_rate: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Judge:
    """Judge a run's samples."""

    run: Annotated[Path, tyro.conf.Positional]
    classifier: Path = Path("cifar_classifier.safetensors")
    per_class: int = 50
    """Images kept for each class."""
    candidates: int = 4
    """Images sampled for each that is kept; 1 is unranked."""
    guidance: float | None = None
    seed: int = 0


@torch.inference_mode()
def judged(model: Classifier, images: Tensor) -> Tensor:
    """The class of each image in [0, 1], by six views of it: moved by a pixel and mirrored."""
    side, padded = images.shape[-1], F.pad(images, (1, 1, 1, 1), mode="reflect")
    moved = [padded[..., at : at + side, at : at + side] for at in range(3)]
    return torch.stack([model(v) + model(v.flip(-1)) for v in moved]).sum(dim=0).argmax(dim=1)


def accuracy(model: Classifier, images: Tensor, labels: Tensor) -> float:
    """Share of images in 0 … 255 that are judged to be of their own class."""
    model.eval()
    parts = zip(images.split(500), labels.split(500), strict=True)
    right = sum(int((judged(model, part.float() / 255) == own).sum()) for part, own in parts)
    return right / len(images)


def train(arguments: Train) -> None:
    """Train, print the test accuracy and save."""
    torch.manual_seed(arguments.seed)
    images, labels = read("train-*.parquet", arguments.data)
    test_images, test_labels = read("test-*.parquet", arguments.data)
    model = Classifier(arguments.widths).to(memory_format=torch.channels_last)
    with torch.no_grad():
        model.whiten.weight.copy_(whitening_filters(images[:5000].float() / 255))
    config = TrainingConfig(
        learning_rate=arguments.learning_rate,
        muon_learning_rate=arguments.muon_learning_rate,
        weight_decay=0.01,
    )
    optimizers = build_optimizer(model, config)
    generator = torch.Generator().manual_seed(arguments.seed)
    per_epoch = len(images) // arguments.batch_size
    steps = round(arguments.epochs * per_epoch)
    precision = choose_precision("auto", images.device)
    began, used = time.monotonic(), time.process_time()
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(len(images), generator=generator)
        at = (step % per_epoch) * arguments.batch_size
        chosen = order[at : at + arguments.batch_size]
        batch = augmented(images[chosen], 2, generator).float() / 255
        set_learning_rate(optimizers, min(1.0, step / (0.1 * steps)) * (1 - step / steps))
        model.train()
        with autocast(precision, batch.device):
            logits = model(batch)
        loss = F.cross_entropy(logits.float(), labels[chosen], label_smoothing=0.2)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if (step + 1) % per_epoch == 0:
            score = accuracy(model, test_images[:1000], test_labels[:1000])
            minutes, busy = (time.monotonic() - began) / 60, (time.process_time() - used) / 60
            print(
                f"epoch {(step + 1) / per_epoch:.1f}: loss {float(loss):.3f}, {score:.3f} of 1,000 "
                f"test images, {minutes:.1f} min, {busy:.1f} of them on the processor",
                flush=True,
            )
    print(f"test accuracy {accuracy(model, test_images, test_labels):.4f} of 10,000")
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, arguments.out)


def judge(arguments: Judge) -> None:
    """Sample every class and print the share assigned to the class that was asked for."""
    from dalle_mini_impl import TextToImage
    from dalle_mini_impl.evaluation.measures.intervals import wilson_interval
    from dalle_mini_impl.images import to_tensor
    from dalle_mini_impl.runs.folder import RunFolder

    model = TextToImage.from_pretrained(arguments.run)
    classifier = Classifier.load(arguments.classifier)
    template = RunFolder.open(arguments.run).experiment.data.templates[0]
    settings = {} if arguments.guidance is None else {"guidance": arguments.guidance}
    right = 0
    for number, name in enumerate(CLASSES):
        count = arguments.per_class * arguments.candidates
        results = model(
            template.format(label=name),
            seed=arguments.seed + number * count,
            num_images=arguments.per_class,
            candidates=count,
            **settings,
        )
        images = to_tensor([result.image for result in results], 32)
        hits = int((judged(classifier, images) == number).sum())
        right += hits
        print(f"{name:12s} {hits / len(results):.2f}")
    total = arguments.per_class * len(CLASSES)
    low, high = wilson_interval(right, total)
    print(f"all classes  {right / total:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    command = tyro.cli(
        Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[Judge, tyro.conf.subcommand("judge")]
    )
    train(command) if isinstance(command, Train) else judge(command)

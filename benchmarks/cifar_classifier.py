"""An independent judge of CIFAR-10 samples: a small convolutional classifier of real pictures.

    python -m benchmarks.cifar_classifier train DATA --out classifier.safetensors --epochs 14
    python -m benchmarks.cifar_classifier judge RUN --classifier classifier.safetensors

`train` sees the real training pictures only and prints its accuracy on the real test pictures.
`judge` paints every class from the run's first caption template and prints the share of pictures
that the classifier assigns to the class that was asked for.
"""

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dalle_mini_impl.settings import TrainingConfig
from dalle_mini_impl.training.optimisers import build_optimizer, set_learning_rate
from dalle_mini_impl.training.precision import autocast, choose_precision

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class Classifier(nn.Module):
    """Space-to-depth, five 3×3 convolutions with batch norm, one linear head."""

    def __init__(self, width: int = 64):
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        before = 12
        for channels, pool in ((1, False), (2, True), (4, False), (4, True), (4, False), (4, True)):
            layers += [
                nn.Conv2d(before, channels * width, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels * width),
                nn.GELU(),
            ]
            if pool:
                layers.append(nn.MaxPool2d(2))
            before = channels * width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(before * 4, 10)
        self.head.output_head = True

    def features(self, images: Tensor) -> Tensor:
        """Flat features of pictures `b 3 32 32` in [0, 1]."""
        return self.layers((images * 4 - 2).to(memory_format=torch.channels_last)).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


@dataclass(frozen=True)
class Train:
    """Train the classifier on real pictures."""

    data: Annotated[Path, tyro.conf.Positional]
    """Folder with CIFAR-10's Parquet files."""
    out: Path = Path("cifar_classifier.safetensors")
    epochs: int = 14
    width: int = 64
    """Channels of the first convolution; the last has four times as many."""
    batch_size: int = 250
    seed: int = 0


@dataclass(frozen=True)
class Judge:
    """Judge a run's samples."""

    run: Annotated[Path, tyro.conf.Positional]
    classifier: Path = Path("cifar_classifier.safetensors")
    per_class: int = 50
    """Pictures kept for each class."""
    candidates: int = 4
    """Pictures drawn for each that is kept; 1 is unranked."""
    guidance: float | None = None
    seed: int = 0


def read(pattern: str, folder: Path) -> tuple[Tensor, Tensor]:
    """Pictures as uint8 `n 3 32 32` and their labels."""
    from datasets import Image as Picture
    from datasets import load_dataset

    files = sorted(str(file) for file in folder.glob(pattern))
    rows = load_dataset("parquet", data_files=files, split="train")
    rows = rows.cast_column("img", Picture(decode=False))
    pictures = [np.asarray(Image.open(io.BytesIO(item["bytes"]))) for item in rows["img"]]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2), torch.tensor(rows["label"])


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flips and shifts by up to four pixels, one for each picture."""
    padded = F.pad(images, (4, 4, 4, 4), mode="reflect")
    flip = torch.rand(len(images), generator=generator) < 0.5
    padded = torch.where(flip[:, None, None, None], padded.flip(-1), padded)
    x, y = torch.randint(9, (2, len(images)), generator=generator)
    rows = (y[:, None] + torch.arange(32))[:, None, :, None]
    columns = (x[:, None] + torch.arange(32))[:, None, None, :]
    pick = torch.arange(len(images))[:, None, None, None]
    return padded[pick, torch.arange(3)[None, :, None, None], rows, columns]


@torch.inference_mode()
def accuracy(model: Classifier, images: Tensor, labels: Tensor) -> float:
    """Share of pictures assigned to their own class, averaged with their mirror images."""
    model.eval()
    right = 0
    for start in range(0, len(images), 500):
        part = images[start : start + 500].float() / 255
        logits = model(part) + model(part.flip(-1))
        right += int((logits.argmax(1) == labels[start : start + 500]).sum())
    return right / len(images)


def train(arguments: Train) -> None:
    """Train, print the test accuracy and save."""
    torch.manual_seed(arguments.seed)
    images, labels = read("train-*.parquet", arguments.data)
    test_images, test_labels = read("test-*.parquet", arguments.data)
    model = Classifier(arguments.width).to(memory_format=torch.channels_last)
    config = TrainingConfig(learning_rate=2e-3, muon_learning_rate=0.05, weight_decay=0.02)
    optimizers = build_optimizer(model, config)
    generator = torch.Generator().manual_seed(arguments.seed)
    per_epoch = len(images) // arguments.batch_size
    steps = arguments.epochs * per_epoch
    precision = choose_precision("auto", images.device)
    began = time.monotonic()
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(len(images), generator=generator)
        at = (step % per_epoch) * arguments.batch_size
        chosen = order[at : at + arguments.batch_size]
        batch = augmented(images[chosen], generator).float() / 255
        set_learning_rate(optimizers, min(1.0, step / 200) * (1 - step / steps))
        model.train()
        with autocast(precision, batch.device):
            logits = model(batch)
        loss = F.cross_entropy(logits.float(), labels[chosen], label_smoothing=0.1)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if (step + 1) % per_epoch == 0:
            score = accuracy(model, test_images[:2000], test_labels[:2000])
            minutes = (time.monotonic() - began) / 60
            print(f"epoch {(step + 1) // per_epoch}: {score:.3f} of 2,000, {minutes:.1f} min")
    print(f"test accuracy {accuracy(model, test_images, test_labels):.4f} of 10,000")
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, arguments.out)


def judge(arguments: Judge) -> None:
    """Paint every class and print the share assigned to the class that was asked for."""
    from dalle_mini_impl import TextToImage
    from dalle_mini_impl.evaluation.prompts import interval
    from dalle_mini_impl.images import to_tensor
    from dalle_mini_impl.run import RunFolder

    model = TextToImage.from_pretrained(arguments.run)
    weights = load_file(arguments.classifier)
    classifier = Classifier(width=len(weights["layers.1.weight"])).eval()
    classifier.load_state_dict(weights)
    template = RunFolder.open(arguments.run).experiment.data.templates[0]
    settings = {} if arguments.guidance is None else {"guidance": arguments.guidance}
    right = 0
    for number, name in enumerate(CLASSES):
        drawn = arguments.per_class * arguments.candidates
        results = model(
            template.format(label=name),
            seed=arguments.seed + number * drawn,
            num_images=arguments.per_class,
            candidates=drawn,
            **settings,
        )
        with torch.inference_mode():
            pictures = to_tensor([result.image for result in results], 32)
            hits = int((classifier(pictures).argmax(1) == number).sum())
        right += hits
        print(f"{name:12s} {hits / len(results):.2f}")
    total = arguments.per_class * len(CLASSES)
    low, high = interval(right, total)
    print(f"all classes  {right / total:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    command = tyro.cli(
        Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[Judge, tyro.conf.subcommand("judge")]
    )
    train(command) if isinstance(command, Train) else judge(command)

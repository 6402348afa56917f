"""The wheel, installed outside the checkout, trains a run and samples from it."""

import os
import subprocess
import sys
from pathlib import Path
from shutil import copy, copytree, ignore_patterns

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("dalle_mini_impl", "configs", "tokenizers")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"

TWO_STEPS = "training.steps=2 training.batch-size=4 training.compile=off training.previews=1"
TINY = [
    "--data.image-size=32",
    "--data.workers=1",
    "--data.shapes.train-examples=40",
    "--data.shapes.validation-examples=24",
    "--data.shapes.held-out-examples=24",
    "--image-tokenizer.autoencoder.width=32",
    *("--image-tokenizer.quantizer.codes", "16", "16"),
    "--transformer.depth=1",
    "--transformer.width=32",
    "--transformer.heads=2",
    "--clip.image-stages=2",
    *(
        f"--{stage}.{option}"
        for stage in ("image-tokenizer", "transformer", "clip")
        for option in TWO_STEPS.split()
    ),
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the wheel installed, of which the checkout is not a part."""
    source = tmp_path_factory.mktemp("source")
    for folder in FOLDERS:
        copytree(ROOT / folder, source / folder, ignore=ignore_patterns("__pycache__"))
    for file in FILES:
        copy(ROOT / file, source)
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("installed")
    run([sys.executable, "-c", BUILD, str(wheels)], source)
    (wheel,) = wheels.glob("*.whl")
    install = ["pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    run([sys.executable, "-m", *install, "--target", str(target), str(wheel)], wheels)
    return target


def run(command: list[str], folder: Path, **environment: str) -> str:
    """What the command prints; the test fails with its error if it fails."""
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_carries_configurations_and_vocabularies(installed):
    package = installed / "dalle_mini_impl"
    for folder, files in (("configs", "*.yaml"), ("tokenizers", "*.json")):
        shipped = sorted(file.name for file in (ROOT / folder).glob(files))
        assert sorted(file.name for file in (package / folder).glob(files)) == shipped
    assert (package / "py.typed").is_file()


def test_the_wheel_trains_and_samples_outside_the_checkout(installed, tmp_path):
    def dalle(*arguments: str) -> str:
        command = [sys.executable, str(installed / "bin" / "dalle"), *arguments]
        return run(command, tmp_path, PYTHONPATH=str(installed), OMP_NUM_THREADS="1")

    said = dalle("train", "shapes", *TINY)
    assert 'dalle sample "CAPTION" --run runs/shapes' in said
    sample = [sys.executable, "-m", "dalle_mini_impl", "sample", "a red star"]
    said = run([*sample, "--num-images=1", "--candidates=1"], tmp_path, PYTHONPATH=str(installed))
    assert (tmp_path / "outputs" / "0001" / "sheet.png").is_file()
    assert "runs/shapes" in said

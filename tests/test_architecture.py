"""The walls of the house: which rooms never import which (docs/architecture.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "dalle_mini_impl"

# Modules by prefix, and what none of them may import, at the top or inside a function.
WALLS = {
    "models": (
        "data", "run", "training", "evaluation", "experiment", "pipeline", "cli", "app",
        ":accelerate", ":PIL", ":datasets",
    ),
    "models.dalle": ("models.clip", "models.image_tokenizer", "models.quantizers"),
    "models.clip": ("models.dalle", "models.image_tokenizer", "models.quantizers"),
    "sampling": ("data", "runs", "training", "evaluation", "pipeline"),
    "evaluation.distances": ("models", "pipeline"),
    "evaluation.frechet": ("models", "pipeline"),
    "evaluation.retrieval": ("models", "pipeline"),
    "data": ("models", "training", "run", "evaluation", "pipeline"),
    "evaluation": ("training",),
    "config": ("",),
    "settings": ("models", "data", "run", "training", ":torch"),
}  # fmt: skip
ONLY = {":accelerate": ("training", "cli"), "cli": ("cli",), "app": ("app",)}


def modules() -> dict[str, Path]:
    files = sorted((ROOT / PACKAGE).rglob("*.py"))
    names = [".".join(file.relative_to(ROOT / PACKAGE).with_suffix("").parts) for file in files]
    return {n.removesuffix("__init__").rstrip("."): f for n, f in zip(names, files, strict=True)}


def imports(source: str, module: str) -> set[str]:
    """Names in the package without its own, and others behind a colon."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively: write the whole name"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    inside = {name.removeprefix(f"{PACKAGE}.") for name in found if name.startswith(f"{PACKAGE}.")}
    return inside | {f":{name}" for name in found if not name.startswith(PACKAGE)}


def within(name: str, room: str) -> bool:
    if room == "":
        return not name.startswith(":")
    return name == room or name.startswith(f"{room}.")


def breaches(module: str, imported: set[str]) -> list[str]:
    forbidden = {
        room for prefix, rooms in WALLS.items() if within(module, prefix) for room in rooms
    } | {room for room, users in ONLY.items() if not any(within(module, user) for user in users)}
    return sorted(n for n in imported if any(within(n, room) for room in forbidden))


@pytest.mark.parametrize("module", modules())
def test_walls_hold(module):
    source = modules()[module].read_text(encoding="utf-8")
    assert breaches(module, imports(source, module)) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("models.clip", "from dalle_mini_impl.models.dalle import Dalle"),
        ("models.clip", "def f():\n    import accelerate.utils"),
        ("models.dalle", "from dalle_mini_impl.models import image_tokenizer"),
        ("models.vqgan", "from PIL import Image"),
        ("sampling", "import dalle_mini_impl.models.dalle"),
        ("data.store", "from dalle_mini_impl import models"),
        ("evaluation.report", "from dalle_mini_impl.training.loop import train"),
        ("pipeline", "from dalle_mini_impl.cli import main"),
        ("pipeline", "import accelerate"),
    ],
)
def test_a_breach_is_noticed(module, source):
    assert breaches(module, imports(source, module))


def test_what_is_allowed_passes():
    source = "import torch\nfrom dalle_mini_impl.config import TrainingConfig"
    assert breaches("models.clip", imports(source, "models.clip")) == []
